package sapwood.spark;

import org.apache.spark.sql.connector.read.PartitionReader;
import org.apache.spark.sql.vectorized.ColumnVector;
import org.apache.spark.sql.vectorized.ColumnarBatch;

/** Rows without columns, as count() wants them: how many there are is known from the survey, so no file is opened. */
final class CountReader implements PartitionReader<ColumnarBatch> {
  private static final int MOST_ROWS = 1 << 30;

  private final ColumnarBatch batch = new ColumnarBatch(new ColumnVector[0]);
  private long left;

  CountReader(long entries) {
    left = entries;
  }

  @Override
  public boolean next() {
    int rows = (int) Math.min(left, MOST_ROWS);
    batch.setNumRows(rows);
    left -= rows;
    return rows > 0;
  }

  @Override
  public ColumnarBatch get() {
    return batch;
  }

  @Override
  public void close() {}
}
