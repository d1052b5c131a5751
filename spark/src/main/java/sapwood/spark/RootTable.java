package sapwood.spark;

import java.util.Set;
import org.apache.spark.sql.connector.catalog.SupportsRead;
import org.apache.spark.sql.connector.catalog.TableCapability;
import org.apache.spark.sql.connector.read.ScanBuilder;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.util.CaseInsensitiveStringMap;

/** Files as one table. They are looked at once, at the first query, as Spark's own tables of files are. */
final class RootTable implements SupportsRead {
  private final StructType schema;
  private final boolean given;
  private final RootOptions options;
  private Survey survey;

  /** given: the schema is the user's or a catalog's, not read from the files just now. */
  RootTable(StructType schema, boolean given, RootOptions options) {
    this.schema = schema;
    this.given = given;
    this.options = options;
  }

  @Override
  public String name() {
    return "root " + String.join(", ", options.paths);
  }

  @SuppressWarnings("deprecation") // columns(), which follows it, is made of it
  @Override
  public StructType schema() {
    return schema;
  }

  @Override
  public Set<TableCapability> capabilities() {
    return Set.of(TableCapability.BATCH_READ);
  }

  @Override
  public ScanBuilder newScanBuilder(CaseInsensitiveStringMap read) {
    return new RootScanBuilder(this);
  }

  RootOptions options() {
    return options;
  }

  /** What a file lacks is null. */
  boolean lenient() {
    return given || options.mergeSchema;
  }

  synchronized Survey survey() {
    if (survey == null) {
      survey = new Survey(options, given ? schema : null);
    }
    return survey;
  }
}
