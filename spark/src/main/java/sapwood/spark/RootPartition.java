package sapwood.spark;

import java.util.ArrayList;
import java.util.List;
import org.apache.spark.sql.connector.read.InputPartition;

/** What one task reads: ranges of entries of some files. */
final class RootPartition implements InputPartition {
  private static final long serialVersionUID = 1;

  final List<Slice> slices = new ArrayList<>();

  /** Entries [begin, end) of a file. */
  record Slice(String url, long begin, long end) implements java.io.Serializable {}

  void add(String url, long begin, long end) {
    slices.add(new Slice(url, begin, end));
  }

  long entries() {
    return slices.stream().mapToLong(slice -> slice.end() - slice.begin()).sum();
  }
}
