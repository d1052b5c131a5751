package sapwood.spark;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.Serializable;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import org.apache.spark.network.util.JavaUtils;
import org.apache.spark.sql.util.CaseInsensitiveStringMap;

/** The options of a read, checked. docs/spark.md describes them. */
final class RootOptions implements Serializable {
  private static final long serialVersionUID = 1;

  /** Names, patterns and folders. */
  final String[] paths;
  /** Path of the tree in each file; null: the only one. */
  final String tree;
  /** The schema is that of all files together. */
  final boolean mergeSchema;
  /** Two columns more: file and entry. */
  final boolean identity;
  /** Paths of the columns and fields that the schema has; none: all. */
  final String[] columns;
  /** Files that cannot be read are left out. */
  final boolean skipBadFiles;
  /** Stored bytes of a partition; 0: what Spark's own readers of files take. */
  final long targetSize;
  /** Decompressed bytes of a batch; 0: the library's choice. */
  final long batchSize;
  /** Bytes of native memory that the batches of a task may take. */
  final long memoryLimit;
  /** A condition that entries must meet, in the library's language; or null. */
  final String where;

  RootOptions(CaseInsensitiveStringMap options) {
    paths = paths(options);
    tree = options.get("tree");
    mergeSchema = options.getBoolean("mergeSchema", false);
    identity = options.getBoolean("identity", false);
    columns = columns(options.getOrDefault("columns", ""));
    skipBadFiles = choice(options, "badFiles", "fail", "skip");
    targetSize = size(options, "targetSize", "0");
    batchSize = size(options, "batchSize", "0");
    memoryLimit = size(options, "memoryLimit", "2g");
    where = options.get("where");
  }

  /** What load() was given: one path, or a list of them as JSON; tables of a catalog have a location. */
  private static String[] paths(CaseInsensitiveStringMap options) {
    List<String> out = new ArrayList<>();
    String list = options.get("paths");
    if (list != null) {
      out.addAll(list("paths", list));
    }
    String path = options.containsKey("path") ? options.get("path") : options.get("location");
    if (path != null) {
      out.add(path);
    }
    if (out.isEmpty()) {
      throw new IllegalArgumentException("root: no path is given: load(\"events.root\"), or option path");
    }
    return out.toArray(new String[0]);
  }

  private static List<String> list(String name, String json) {
    try {
      return Arrays.asList(new ObjectMapper().readValue(json, String[].class));
    } catch (JsonProcessingException failure) {
      throw new IllegalArgumentException("option " + name + ": a JSON list of texts is expected, but it is " + json, failure);
    }
  }

  /** A list with commas, or as JSON where names hold commas. */
  private static String[] columns(String text) {
    if (text.strip().startsWith("[")) {
      return list("columns", text).toArray(new String[0]);
    }
    return Arrays.stream(text.split(",")).map(String::strip).filter(word -> !word.isEmpty()).toArray(String[]::new);
  }

  private static boolean choice(CaseInsensitiveStringMap options, String name, String no, String yes) {
    String value = options.getOrDefault(name, no).toLowerCase(Locale.ROOT);
    if (!value.equals(no) && !value.equals(yes)) {
      throw new IllegalArgumentException("option " + name + ": \"" + no + "\" or \"" + yes + "\", but it is \"" + value + "\"");
    }
    return value.equals(yes);
  }

  private static long size(CaseInsensitiveStringMap options, String name, String standard) {
    String value = options.getOrDefault(name, standard);
    try {
      return JavaUtils.byteStringAsBytes(value);
    } catch (NumberFormatException failure) {
      throw new IllegalArgumentException("option " + name + ": a size such as \"64m\" is expected, but it is \"" + value + "\"", failure);
    }
  }
}
