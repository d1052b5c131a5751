package sapwood.spark;

import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.connector.read.InputPartition;
import org.apache.spark.sql.connector.read.PartitionReader;
import org.apache.spark.sql.connector.read.PartitionReaderFactory;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.vectorized.ColumnarBatch;

/** Goes from the driver to the executors, and opens readers there. */
final class RootReaderFactory implements PartitionReaderFactory {
  private static final long serialVersionUID = 1;

  final RootOptions options;
  final StructType wanted;
  final String[] conditions;
  final boolean lenient;

  RootReaderFactory(RootOptions options, StructType wanted, String[] conditions, boolean lenient) {
    this.options = options;
    this.wanted = wanted;
    this.conditions = conditions;
    this.lenient = lenient;
  }

  @Override
  public PartitionReader<InternalRow> createReader(InputPartition partition) {
    throw new UnsupportedOperationException("root: all partitions are read in batches of columns");
  }

  @Override
  public PartitionReader<ColumnarBatch> createColumnarReader(InputPartition partition) {
    RootPartition part = (RootPartition) partition;
    boolean countsAlone = wanted.isEmpty() && conditions.length == 0 && options.where == null;
    return countsAlone ? new CountReader(part.entries()) : new RootReader(this, part);
  }

  @Override
  public boolean supportColumnarReads(InputPartition partition) {
    return true;
  }
}
