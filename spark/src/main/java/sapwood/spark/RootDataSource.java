package sapwood.spark;

import java.util.Map;
import org.apache.spark.sql.connector.catalog.Table;
import org.apache.spark.sql.connector.catalog.TableProvider;
import org.apache.spark.sql.connector.expressions.Transform;
import org.apache.spark.sql.sources.DataSourceRegister;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.util.CaseInsensitiveStringMap;

/** TTrees and RNTuples as tables: <code>spark.read.format("root")</code>, <code>CREATE TABLE … USING root</code>. */
public final class RootDataSource implements TableProvider, DataSourceRegister {
  private StructType inferred;

  @Override
  public String shortName() {
    return "root";
  }

  @Override
  public StructType inferSchema(CaseInsensitiveStringMap options) {
    inferred = Survey.readSchema(new RootOptions(options));
    return inferred;
  }

  @Override
  public Table getTable(StructType schema, Transform[] partitioning, Map<String, String> properties) {
    boolean given = schema != inferred;
    return new RootTable(schema, given, new RootOptions(new CaseInsensitiveStringMap(properties)));
  }

  /** Whoever gives a schema gets that: what a file lacks is null. */
  @Override
  public boolean supportsExternalMetadata() {
    return true;
  }
}
