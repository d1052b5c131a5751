package sapwood.spark;

import java.util.Arrays;
import org.apache.spark.sql.connector.metric.CustomMetric;
import org.apache.spark.sql.connector.metric.CustomTaskMetric;

/** What reading costs, as Spark's user interface shows it. Spark makes an instance of each class by name, so each metric is one. */
public final class Metrics {
  static final String BYTES_READ = "bytesRead";
  static final String BYTES_UNPACKED = "bytesUnpacked";
  static final String BASKETS = "baskets";
  static final String UNPACK_TIME = "unpackTime";
  static final String ENTRIES_LEFT_OUT = "entriesLeftOut";
  static final String SKIPPED_FILES = "skippedFiles";
  static final String PEAK_MEMORY = "peakMemory";

  private Metrics() {}

  static CustomMetric[] all() {
    return new CustomMetric[] {
      new BytesRead(), new BytesUnpacked(), new Baskets(), new UnpackTime(), new EntriesLeftOut(), new SkippedFiles(), new PeakMemory()
    };
  }

  static CustomTaskMetric value(String name, long value) {
    return new CustomTaskMetric() {
      @Override
      public String name() {
        return name;
      }

      @Override
      public long value() {
        return value;
      }
    };
  }

  private abstract static class Metric implements CustomMetric {
    private final String name;
    private final String description;

    Metric(String name, String description) {
      this.name = name;
      this.description = description;
    }

    @Override
    public String name() {
      return name;
    }

    @Override
    public String description() {
      return description;
    }

    @Override
    public String aggregateTaskMetrics(long[] values) {
      return show(Arrays.stream(values).sum());
    }

    String show(long value) {
      return String.format("%,d", value);
    }

    static String bytes(long value) {
      return value < 10_000_000 ? String.format("%.1f kB", value * 1e-3) : String.format("%,.1f MB", value * 1e-6);
    }
  }

  /** Bytes of baskets and pages as they are stored, or that a server sent. */
  public static final class BytesRead extends Metric {
    public BytesRead() {
      super(BYTES_READ, "bytes read");
    }

    @Override
    String show(long value) {
      return bytes(value);
    }
  }

  /** The same, decompressed. */
  public static final class BytesUnpacked extends Metric {
    public BytesUnpacked() {
      super(BYTES_UNPACKED, "bytes decompressed");
    }

    @Override
    String show(long value) {
      return bytes(value);
    }
  }

  /** Baskets of TTrees, pages of RNTuples. */
  public static final class Baskets extends Metric {
    public Baskets() {
      super(BASKETS, "baskets and pages");
    }
  }

  /** Nanoseconds spent decompressing. */
  public static final class UnpackTime extends Metric {
    public UnpackTime() {
      super(UNPACK_TIME, "seconds decompressing");
    }

    @Override
    String show(long value) {
      return String.format("%.3f s", value * 1e-9);
    }
  }

  /** Entries for which a pushed comparison did not hold. */
  public static final class EntriesLeftOut extends Metric {
    public EntriesLeftOut() {
      super(ENTRIES_LEFT_OUT, "entries left out by conditions");
    }
  }

  /** Files that could not be read, with badFiles=skip. */
  public static final class SkippedFiles extends Metric {
    public SkippedFiles() {
      super(SKIPPED_FILES, "files skipped");
    }
  }

  /** The largest batch memory of any task. */
  public static final class PeakMemory extends Metric {
    public PeakMemory() {
      super(PEAK_MEMORY, "native memory of batches, at most");
    }

    @Override
    public String aggregateTaskMetrics(long[] values) {
      return bytes(Arrays.stream(values).max().orElse(0));
    }
  }
}
