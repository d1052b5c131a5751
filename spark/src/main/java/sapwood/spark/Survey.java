package sapwood.spark;

import java.lang.ref.Cleaner;
import java.util.ArrayList;
import java.util.List;
import org.apache.arrow.c.ArrowSchema;
import org.apache.arrow.c.Data;
import org.apache.arrow.memory.BufferAllocator;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.util.ArrowUtils;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** What the files of a table hold: entries and clusters of each, looked at in parallel by the C library. Of the driver. */
final class Survey {
  private static final Logger LOG = LoggerFactory.getLogger(Survey.class);
  private static final Cleaner CLEANER = Cleaner.create();
  /** Opening is waiting, where files are remote. */
  private static final int THREADS = Math.max(Runtime.getRuntime().availableProcessors(), 16);

  private final long table;
  private final String[] urls;
  /** The files that were left out, each with the reason. */
  final List<String> skipped = new ArrayList<>();
  final long entries;
  final long bytes;

  /** given: the schema that the user gave; null: read from the files. */
  Survey(RootOptions options, StructType given) {
    Natives.load();
    try (BufferAllocator allocator = allocator(); WantedSchema schema = new WantedSchema(allocator, given)) {
      table = open(Texts.encode(options.paths), Texts.encode(options.tree), options.mergeSchema, options.skipBadFiles,
          options.identity, schema.address(), THREADS);
    }
    long handle = table;
    CLEANER.register(this, () -> close(handle));
    urls = new String[fileCount(table)];
    long[] totals = new long[2];
    for (int i = 0; i < urls.length; i++) {
      urls[i] = fileUrl(table, i);
      String problem = fileProblem(table, i);
      if (problem != null) {
        LOG.warn("left out: {}", problem);
        skipped.add(problem);
      }
      totals[0] += fileEntries(table, i);
      totals[1] += fileBytes(table, i);
    }
    entries = totals[0];
    bytes = totals[1];
  }

  /** The schema of the files: of the first one that opens, or of all together. */
  static StructType readSchema(RootOptions options) {
    Natives.load();
    try (BufferAllocator allocator = allocator(); ArrowSchema schema = ArrowSchema.allocateNew(allocator)) {
      readSchema(Texts.encode(options.paths), Texts.encode(options.tree), options.mergeSchema, options.skipBadFiles, options.identity,
          Texts.encode(options.columns), THREADS, schema.memoryAddress());
      return Schemas.toSpark(Data.importSchema(allocator, schema, null));
    }
  }

  /** Parts of about targetSize stored bytes of the wanted columns, at least so many where there are clusters enough. */
  RootPartition[] plan(StructType wanted, long targetSize, int least) {
    long[] slices;
    try (BufferAllocator allocator = allocator(); WantedSchema schema = new WantedSchema(allocator, wanted)) {
      slices = plan(table, schema.address(), targetSize, least);
    }
    List<RootPartition> parts = new ArrayList<>();
    for (int i = 0; i < slices.length; i += 4) {
      if (slices[i + 3] == parts.size()) {
        parts.add(new RootPartition());
      }
      parts.get(parts.size() - 1).add(urls[(int) slices[i]], slices[i + 1], slices[i + 2]);
    }
    return parts.toArray(new RootPartition[0]);
  }

  private static BufferAllocator allocator() {
    return ArrowUtils.rootAllocator().newChildAllocator("sapwood", 0, Long.MAX_VALUE);
  }

  private static native void readSchema(byte[][] urls, byte[] tree, boolean merge, boolean skip, boolean identity, byte[][] columns,
      int threads, long out);

  private static native long open(byte[][] urls, byte[] tree, boolean merge, boolean skip, boolean identity, long schema, int threads);

  private static native void close(long table);

  private static native int fileCount(long table);

  private static native String fileUrl(long table, int index);

  private static native String fileProblem(long table, int index);

  private static native long fileEntries(long table, int index);

  private static native long fileBytes(long table, int index);

  /** Four numbers a slice: file, first entry, entry behind the last, part. */
  private static native long[] plan(long table, long wanted, long targetSize, int least);
}
