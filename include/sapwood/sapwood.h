/* The whole public interface of Sapwood. */
#ifndef SAPWOOD_SAPWOOD_H
#define SAPWOOD_SAPWOOD_H

#include <sapwood/access.h>
#include <sapwood/base.h>
#include <sapwood/column.h>
#include <sapwood/comm.h>
#include <sapwood/dataset.h>
#include <sapwood/export.h>
#include <sapwood/nn.h>
#include <sapwood/pipeline.h>
#include <sapwood/recipe.h>
#include <sapwood/root.h>
#include <sapwood/table.h>

#endif
