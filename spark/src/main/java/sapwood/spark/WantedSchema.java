package sapwood.spark;

import org.apache.arrow.c.ArrowSchema;
import org.apache.arrow.c.Data;
import org.apache.arrow.memory.BufferAllocator;
import org.apache.spark.sql.types.StructType;

/** A schema as Arrow's C structure, for the C library to look at while this is open. */
final class WantedSchema implements AutoCloseable {
  private final ArrowSchema schema;

  /** wanted: null for none, whose address is 0. */
  WantedSchema(BufferAllocator allocator, StructType wanted) {
    schema = wanted == null ? null : ArrowSchema.allocateNew(allocator);
    if (wanted != null) {
      Data.exportSchema(allocator, Schemas.toArrow(wanted), null, schema);
    }
  }

  long address() {
    return schema == null ? 0 : schema.memoryAddress();
  }

  @Override
  public void close() {
    if (schema != null) {
      schema.release();
      schema.close();
    }
  }
}
