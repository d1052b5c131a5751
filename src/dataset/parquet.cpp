/* The Parquet plug-in: a thin layer over Arrow's C++ library. Data crosses as Arrow C Data, errors as sap_error; no exception leaves. */
extern "C" {
#include "dataset_internal.h"
}

#include <arrow/api.h>
#include <arrow/c/bridge.h>
#include <arrow/io/file.h>
#include <arrow/ipc/reader.h>
#include <arrow/ipc/writer.h>
#include <arrow/util/byte_size.h>
#include <arrow/util/config.h>
#include <exception>
#include <memory>
#include <parquet/arrow/reader.h>
#include <parquet/arrow/writer.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>
#include <string>
#include <vector>

namespace {

/* Measured on the topology recipe's features: particles compress two to one in less than half of the time that level 1 takes. */
constexpr int compression_level = -3;
constexpr int64_t row_group_bytes = 64 << 20;

sap_status fail(sap_error *err, sap_status status, const std::string &where, const std::string &what) {
    if (err) {
        err->status = status;
        (void)snprintf(err->message, sizeof err->message, "%s: %s", where.c_str(), what.c_str());
    }
    return status;
}

sap_status fail(sap_error *err, const std::string &where, const arrow::Status &status, sap_status otherwise) {
    sap_status code = status.IsIOError()          ? SAP_EIO
                      : status.IsOutOfMemory()    ? SAP_EMEMORY
                      : status.IsNotImplemented() ? SAP_EUNSUPPORTED
                                                  : otherwise;
    std::string detail = status.detail() ? " (" + status.detail()->ToString() + ")" : ""; /* strerror, mostly */
    return fail(err, code, where, status.message() + detail);
}

/* Runs `body`, which returns an arrow::Status, and turns whatever it throws into an error. */
template <typename Body>
sap_status guarded(const std::string &where, sap_status otherwise, sap_error *err, Body body) noexcept {
    try {
        arrow::Status status = body();
        return status.ok() ? SAP_OK : fail(err, where, status, otherwise);
    } catch (const std::bad_alloc &) {
        return fail(err, SAP_EMEMORY, where, "out of memory");
    } catch (const std::exception &e) {
        return fail(err, otherwise, where, e.what());
    } catch (...) {
        return fail(err, otherwise, where, "unknown failure of the Parquet library");
    }
}

/* ---- Writing ---------------------------------------------------------------------------------------------- */

struct writer {
    std::string path;
    std::shared_ptr<arrow::Schema> schema;
    std::shared_ptr<arrow::io::FileOutputStream> file;
    std::unique_ptr<parquet::arrow::FileWriter> parquet; /* or */
    std::shared_ptr<arrow::ipc::RecordBatchWriter> ipc;
    int64_t group_bytes = 0;
};

bool is_list(const arrow::DataType &type) {
    return type.id() == arrow::Type::LIST || type.id() == arrow::Type::FIXED_SIZE_LIST;
}

/* Few different values come in dictionaries; features hardly repeat, and nobody looks for a range of them. */
std::shared_ptr<parquet::WriterProperties> properties_for(const arrow::Schema &schema, sap_arrow_form form) {
    parquet::WriterProperties::Builder builder;
    if (form == SAP_PARQUET_TABLE)
        return builder.compression(parquet::Compression::ZSTD)->build();
    builder.compression(parquet::Compression::ZSTD)->compression_level(compression_level)->disable_dictionary();
    for (const auto &field : schema.fields()) {
        if (field->type()->id() == arrow::Type::STRING || field->type()->id() == arrow::Type::INT32)
            builder.enable_dictionary(field->name());
        if (is_list(*field->type()))
            builder.disable_statistics(field->name() + ".list.element");
    }
    return builder.build();
}

sap_status create(const char *path, sap_arrow_form form, struct ArrowSchema *c_schema, void **out, sap_error *err) {
    auto w = std::unique_ptr<writer>();
    sap_status status = guarded(path, SAP_EIO, err, [&]() -> arrow::Status {
        w = std::make_unique<writer>();
        w->path = path;
        ARROW_ASSIGN_OR_RAISE(w->schema, arrow::ImportSchema(c_schema));
        ARROW_ASSIGN_OR_RAISE(w->file, arrow::io::FileOutputStream::Open(path));
        if (form == SAP_ARROW_FILE)
            return arrow::ipc::MakeFileWriter(w->file, w->schema).Value(&w->ipc);
        auto keep_types = parquet::ArrowWriterProperties::Builder().store_schema()->build();
        ARROW_ASSIGN_OR_RAISE(w->parquet,
                              parquet::arrow::FileWriter::Open(*w->schema, arrow::default_memory_pool(), w->file,
                                                               properties_for(*w->schema, form), keep_types));
        return arrow::Status::OK();
    });
    if (c_schema->release)
        c_schema->release(c_schema);
    if (status == SAP_OK)
        *out = w.release();
    return status;
}

sap_status write(void *context, struct ArrowArray *array, sap_error *err) {
    auto *w = static_cast<writer *>(context);
    sap_status status = guarded(w->path, SAP_EIO, err, [&]() -> arrow::Status {
        ARROW_ASSIGN_OR_RAISE(auto batch, arrow::ImportRecordBatch(array, w->schema));
        if (w->ipc)
            return w->ipc->WriteRecordBatch(*batch);
        if (w->group_bytes >= row_group_bytes) {
            ARROW_RETURN_NOT_OK(w->parquet->NewBufferedRowGroup());
            w->group_bytes = 0;
        }
        ARROW_ASSIGN_OR_RAISE(int64_t bytes, arrow::util::ReferencedBufferSize(*batch));
        w->group_bytes += bytes;
        return w->parquet->WriteRecordBatch(*batch);
    });
    if (array->release)
        array->release(array);
    return status;
}

sap_status finish(void *context, sap_error *err) {
    auto *w = static_cast<writer *>(context);
    return guarded(w->path, SAP_EIO, err, [&]() -> arrow::Status {
        ARROW_RETURN_NOT_OK(w->ipc ? w->ipc->Close() : w->parquet->Close());
        return w->file->Close();
    });
}

/* An unfinished writer would write its footer when it is destroyed; its file is closed before, and what that gives is nobody's concern. */
void writer_close(void *context) {
    auto *w = static_cast<writer *>(context);
    (void)guarded(w->path, SAP_EIO, nullptr, [&]() -> arrow::Status {
        auto ignored = w->file->Close();
        w->parquet.reset();
        w->ipc.reset();
        return ignored;
    });
    delete w;
}

/* ---- Reading ------------------------------------------------------------------------------------------------ */

struct reader {
    std::string path;
    std::unique_ptr<parquet::arrow::FileReader> parquet;
    std::shared_ptr<arrow::RecordBatchReader> batches;
    uint64_t bytes = 0;
};

/* Leaf columns of the top-level fields `names`. */
arrow::Status leaves_of(const parquet::SchemaDescriptor &schema, const char *const *names, int32_t count,
                        std::vector<int> *leaves) {
    for (int32_t i = 0; i < count; i++) {
        size_t before = leaves->size();
        for (int leaf = 0; leaf < schema.num_columns(); leaf++)
            if (schema.GetColumnRoot(leaf)->name() == names[i])
                leaves->push_back(leaf);
        if (leaves->size() == before)
            return arrow::Status::KeyError("has no column \"", names[i], "\"");
    }
    return arrow::Status::OK();
}

/* The columns `names` of an Arrow file, batch after batch. */
class file_batches : public arrow::RecordBatchReader {
  public:
    static arrow::Result<std::shared_ptr<file_batches>> open(const std::shared_ptr<arrow::io::ReadableFile> &source,
                                                             const char *const *names, int32_t count) {
        auto made = std::make_shared<file_batches>();
        ARROW_ASSIGN_OR_RAISE(auto whole, arrow::ipc::RecordBatchFileReader::Open(source));
        auto options = arrow::ipc::IpcReadOptions::Defaults();
        options.use_threads = false;
        for (int32_t i = 0; i < count; i++) {
            int index = whole->schema()->GetFieldIndex(names[i]);
            if (index < 0)
                return arrow::Status::KeyError("has no column \"", names[i], "\"");
            options.included_fields.push_back(index);
        }
        ARROW_ASSIGN_OR_RAISE(made->file, arrow::ipc::RecordBatchFileReader::Open(source, options));
        return made;
    }
    std::shared_ptr<arrow::Schema> schema() const override {
        return file->schema();
    }
    arrow::Status ReadNext(std::shared_ptr<arrow::RecordBatch> *batch) override {
        batch->reset();
        if (next == file->num_record_batches())
            return arrow::Status::OK();
        ARROW_ASSIGN_OR_RAISE(*batch, file->ReadRecordBatch(next++));
        return (*batch)->ValidateFull(); /* the reader believes what lengths and offsets the file has */
    }

  private:
    std::shared_ptr<arrow::ipc::RecordBatchFileReader> file;
    int next = 0;
};

arrow::Result<bool> is_arrow_file(arrow::io::ReadableFile *file) {
    ARROW_ASSIGN_OR_RAISE(auto magic, file->ReadAt(0, 6));
    return magic->ToString() == "ARROW1";
}

/* What it takes as float32, which numbers become. */
uint64_t bytes_of(const parquet::ColumnChunkMetaData &chunk) {
    bool text = chunk.type() == parquet::Type::BYTE_ARRAY;
    int64_t bytes = text ? chunk.total_uncompressed_size() : chunk.num_values() * static_cast<int64_t>(sizeof(float));
    return bytes > 0 ? static_cast<uint64_t>(bytes) : 0;
}

sap_status open(const char *path, const char *const *columns, int32_t count, int64_t rows_at_once, void **out,
                sap_error *err) {
    auto r = std::unique_ptr<reader>();
    sap_status status = guarded(path, SAP_EFORMAT, err, [&]() -> arrow::Status {
        r = std::make_unique<reader>();
        r->path = path;
        ARROW_ASSIGN_OR_RAISE(auto file, arrow::io::ReadableFile::Open(path));
        ARROW_ASSIGN_OR_RAISE(bool arrow_file, is_arrow_file(file.get()));
        if (arrow_file) {
            ARROW_ASSIGN_OR_RAISE(int64_t size, file->GetSize());
            r->bytes = static_cast<uint64_t>(size);
            return file_batches::open(file, columns, count).Value(&r->batches);
        }
        parquet::ArrowReaderProperties properties(false);
        properties.set_batch_size(rows_at_once);
        properties.set_pre_buffer(false); /* it would read ahead in threads of Arrow's own */
        parquet::arrow::FileReaderBuilder builder;
        ARROW_RETURN_NOT_OK(builder.Open(file));
        builder.properties(properties);
#if ARROW_VERSION_MAJOR >= 21
        ARROW_ASSIGN_OR_RAISE(r->parquet, builder.Build());
#else
        ARROW_RETURN_NOT_OK(builder.Build(&r->parquet));
#endif
        auto metadata = r->parquet->parquet_reader()->metadata();
        std::vector<int> leaves, groups;
        ARROW_RETURN_NOT_OK(leaves_of(*metadata->schema(), columns, count, &leaves));
        for (int g = 0; g < metadata->num_row_groups(); g++) {
            groups.push_back(g);
            for (int leaf : leaves)
                r->bytes += bytes_of(*metadata->RowGroup(g)->ColumnChunk(leaf));
        }
#if ARROW_VERSION_MAJOR >= 21
        ARROW_ASSIGN_OR_RAISE(r->batches, r->parquet->GetRecordBatchReader(groups, leaves));
#else
        std::unique_ptr<arrow::RecordBatchReader> batches;
        ARROW_RETURN_NOT_OK(r->parquet->GetRecordBatchReader(groups, leaves, &batches));
        r->batches = std::move(batches);
#endif
        return arrow::Status::OK();
    });
    if (status == SAP_OK)
        *out = r.release();
    return status;
}

sap_status next(void *context, struct ArrowSchema *schema, struct ArrowArray *array, sap_error *err) {
    auto *r = static_cast<reader *>(context);
    schema->release = nullptr;
    array->release = nullptr;
    return guarded(r->path, SAP_EFORMAT, err, [&]() -> arrow::Status {
        std::shared_ptr<arrow::RecordBatch> batch;
        do {
            ARROW_RETURN_NOT_OK(r->batches->ReadNext(&batch));
        } while (batch && batch->num_rows() == 0);
        return batch ? arrow::ExportRecordBatch(*batch, array, schema) : arrow::Status::OK();
    });
}

uint64_t bytes(const void *context) {
    return static_cast<const reader *>(context)->bytes;
}

sap_status describe(const char *path, struct ArrowSchema *schema, int64_t *rows, sap_error *err) {
    schema->release = nullptr;
    return guarded(path, SAP_EFORMAT, err, [&]() -> arrow::Status {
        ARROW_ASSIGN_OR_RAISE(auto file, arrow::io::ReadableFile::Open(path));
        parquet::arrow::FileReaderBuilder builder;
        ARROW_RETURN_NOT_OK(builder.Open(file));
        std::unique_ptr<parquet::arrow::FileReader> parquet;
#if ARROW_VERSION_MAJOR >= 21
        ARROW_ASSIGN_OR_RAISE(parquet, builder.Build());
#else
        ARROW_RETURN_NOT_OK(builder.Build(&parquet));
#endif
        std::shared_ptr<arrow::Schema> types;
        ARROW_RETURN_NOT_OK(parquet->GetSchema(&types));
        *rows = parquet->parquet_reader()->metadata()->num_rows();
        return arrow::ExportSchema(*types, schema);
    });
}

void reader_close(void *context) {
    auto *r = static_cast<reader *>(context);
    (void)guarded(r->path, SAP_EIO, nullptr, [&]() -> arrow::Status {
        r->batches.reset();
        r->parquet.reset();
        return arrow::Status::OK();
    });
    delete r;
}

} // namespace

extern "C" SAP_API const sap_parquet_table sap_plugin_parquet;
const sap_parquet_table sap_plugin_parquet = {create, write, finish,   writer_close, open,
                                              next,   bytes, describe, reader_close};
