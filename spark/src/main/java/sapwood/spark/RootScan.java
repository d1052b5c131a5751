package sapwood.spark;

import java.util.OptionalLong;
import org.apache.spark.SparkContext;
import org.apache.spark.network.util.JavaUtils;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.connector.metric.CustomMetric;
import org.apache.spark.sql.connector.metric.CustomTaskMetric;
import org.apache.spark.sql.connector.read.Batch;
import org.apache.spark.sql.connector.read.InputPartition;
import org.apache.spark.sql.connector.read.PartitionReaderFactory;
import org.apache.spark.sql.connector.read.Scan;
import org.apache.spark.sql.connector.read.Statistics;
import org.apache.spark.sql.connector.read.SupportsReportStatistics;
import org.apache.spark.sql.types.StructType;

/** One read of a table: the columns and conditions of a query. */
final class RootScan implements Scan, Batch, SupportsReportStatistics {
  private final RootTable table;
  private final StructType wanted;
  private final String[] conditions;

  RootScan(RootTable table, StructType wanted, String[] conditions) {
    this.table = table;
    this.wanted = wanted;
    this.conditions = conditions;
  }

  @Override
  public StructType readSchema() {
    return wanted;
  }

  @Override
  public String description() {
    String where = conditions.length == 0 ? "" : " where " + String.join(" && ", conditions);
    return "root " + String.join(", ", table.options().paths) + where;
  }

  @Override
  public Batch toBatch() {
    return this;
  }

  /** As many partitions as there are slots, and no larger than Spark makes those of its own files, unless the user says otherwise. */
  @Override
  public InputPartition[] planInputPartitions() {
    RootOptions options = table.options();
    if (options.targetSize > 0) {
      return table.survey().plan(wanted, options.targetSize, 1);
    }
    int slots = SparkContext.getOrCreate().defaultParallelism();
    String largest = SparkSession.active().conf().get("spark.sql.files.maxPartitionBytes", "128m");
    return table.survey().plan(wanted, JavaUtils.byteStringAsBytes(largest), slots);
  }

  @Override
  public PartitionReaderFactory createReaderFactory() {
    return new RootReaderFactory(table.options(), wanted, conditions, table.lenient());
  }

  @Override
  public ColumnarSupportMode columnarSupportMode() {
    return ColumnarSupportMode.SUPPORTED;
  }

  @Override
  public Statistics estimateStatistics() {
    Survey survey = table.survey();
    double share = table.schema().isEmpty() ? 1 : (double) wanted.defaultSize() / table.schema().defaultSize();
    return new Statistics() {
      @Override
      public OptionalLong sizeInBytes() {
        return OptionalLong.of((long) (survey.bytes * share));
      }

      @Override
      public OptionalLong numRows() {
        return OptionalLong.of(survey.entries);
      }
    };
  }

  @Override
  public CustomMetric[] supportedCustomMetrics() {
    return Metrics.all();
  }

  /** Files that could not be opened are known before any task runs. */
  @Override
  public CustomTaskMetric[] reportDriverMetrics() {
    return new CustomTaskMetric[] {Metrics.value(Metrics.SKIPPED_FILES, table.survey().skipped.size())};
  }
}
