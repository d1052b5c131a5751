package sapwood.spark;

import java.util.Iterator;
import java.util.Set;
import org.apache.arrow.c.ArrowArray;
import org.apache.arrow.c.Data;
import org.apache.arrow.memory.BufferAllocator;
import org.apache.arrow.vector.VectorSchemaRoot;
import org.apache.arrow.vector.types.pojo.Schema;
import org.apache.spark.TaskContext;
import org.apache.spark.TaskKilledException;
import org.apache.spark.sql.connector.metric.CustomTaskMetric;
import org.apache.spark.sql.connector.read.PartitionReader;
import org.apache.spark.sql.util.ArrowUtils;
import org.apache.spark.sql.vectorized.ArrowColumnVector;
import org.apache.spark.sql.vectorized.ColumnVector;
import org.apache.spark.sql.vectorized.ColumnarBatch;
import org.apache.spark.util.TaskCompletionListener;
import org.apache.spark.util.TaskInterruptListener;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The batches of a partition, one slice after another. Their values stay where the C library put them: Spark's vectors look at them there, through
 * Arrow's C Data Interface. Memory that is held is counted by Arrow's allocator, and bounded; it is given back when the task ends, however that is.
 */
final class RootReader implements PartitionReader<ColumnarBatch> {
  private static final Logger LOG = LoggerFactory.getLogger(RootReader.class);
  /** What badFiles=skip passes over: kinds of failure that are a file's, not the query's. */
  private static final Set<String> BAD_FILE = Set.of("bad format", "input/output", "not found", "unsupported", "unusable data", "wrong type");

  private final RootReaderFactory what;
  private final Iterator<RootPartition.Slice> slices;
  private final NativeReader reader = new NativeReader();
  private final BufferAllocator allocator;
  private final WantedSchema schema;
  private final Schema arrow;
  private ColumnarBatch batch = new ColumnarBatch(new ColumnVector[0]);
  private RootPartition.Slice slice;
  private long skippedFiles;
  private long[] stats = new long[7];
  private boolean closed;

  RootReader(RootReaderFactory what, RootPartition partition) {
    this.what = what;
    slices = partition.slices.iterator();
    allocator = ArrowUtils.rootAllocator().newChildAllocator("sapwood", 0, what.options.memoryLimit);
    schema = new WantedSchema(allocator, what.wanted);
    arrow = Schemas.toArrow(what.wanted);
    TaskContext task = TaskContext.get();
    if (task != null) {
      task.addTaskCompletionListener((TaskCompletionListener) context -> close());
      task.addTaskInterruptListener((TaskInterruptListener) (context, reason) -> reader.cancel());
    }
  }

  @Override
  public boolean next() {
    while (slice != null || slices.hasNext()) {
      try {
        if (slice == null) {
          slice = slices.next();
          reader.open(slice, what, schema.address());
        }
        if (load()) {
          return true;
        }
      } catch (SapwoodException failure) {
        pass(failure);
      }
      slice = null;
    }
    return false;
  }

  /** Vectors are made anew for each batch: Spark closes those that it has done with, and closed ones have lost their children. */
  private boolean load() {
    batch.close();
    VectorSchemaRoot root = VectorSchemaRoot.create(arrow, allocator);
    ColumnVector[] columns = root.getFieldVectors().stream().map(ArrowColumnVector::new).toArray(ColumnVector[]::new);
    batch = new ColumnarBatch(columns);
    try (ArrowArray array = ArrowArray.allocateNew(allocator)) {
      if (!reader.next(array.memoryAddress())) {
        return false;
      }
      Data.importIntoVectorSchemaRoot(allocator, array, root, null);
    }
    batch.setNumRows(root.getRowCount());
    return true;
  }

  /** Goes over the rest of a bad file, if that is wanted. */
  private void pass(SapwoodException failure) {
    TaskContext task = TaskContext.get();
    if (task != null && task.isInterrupted()) {
      throw new TaskKilledException("reading was cancelled");
    }
    if (!what.options.skipBadFiles || !BAD_FILE.contains(failure.status())) {
      throw failure;
    }
    LOG.warn("the rest of entries [{}, {}) is left out: {}", slice.begin(), slice.end(), failure.getMessage());
    skippedFiles++;
  }

  @Override
  public ColumnarBatch get() {
    return batch;
  }

  @Override
  public CustomTaskMetric[] currentMetricsValues() {
    if (!closed) {
      stats = reader.stats();
    }
    return new CustomTaskMetric[] {
      Metrics.value(Metrics.BYTES_READ, Math.max(stats[2], stats[4])),
      Metrics.value(Metrics.BYTES_UNPACKED, stats[3]),
      Metrics.value(Metrics.BASKETS, stats[5]),
      Metrics.value(Metrics.UNPACK_TIME, stats[6]),
      Metrics.value(Metrics.ENTRIES_LEFT_OUT, stats[0] - stats[1]),
      Metrics.value(Metrics.SKIPPED_FILES, skippedFiles),
      Metrics.value(Metrics.PEAK_MEMORY, allocator.getPeakMemoryAllocation()),
    };
  }

  @Override
  public void close() {
    if (closed) {
      return;
    }
    stats = reader.stats();
    closed = true;
    reader.close();
    batch.close();
    schema.close();
    allocator.close();
  }
}
