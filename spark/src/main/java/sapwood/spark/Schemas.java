package sapwood.spark;

import java.util.ArrayList;
import java.util.List;
import org.apache.arrow.vector.types.FloatingPointPrecision;
import org.apache.arrow.vector.types.pojo.ArrowType;
import org.apache.arrow.vector.types.pojo.Field;
import org.apache.arrow.vector.types.pojo.FieldType;
import org.apache.arrow.vector.types.pojo.Schema;
import org.apache.spark.sql.types.ArrayType;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.DecimalType;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;

/** Schemas of Spark as those of Arrow and back: of the types that tables of the C library have, and no others. */
final class Schemas {
  private Schemas() {}

  static StructType toSpark(Schema schema) {
    return struct(schema.getFields());
  }

  static Schema toArrow(StructType schema) {
    return new Schema(fields(schema));
  }

  private static StructType struct(List<Field> fields) {
    StructType out = new StructType();
    for (Field field : fields) {
      out = out.add(field.getName(), type(field), field.isNullable());
    }
    return out;
  }

  private static DataType type(Field field) {
    ArrowType type = field.getType();
    if (type instanceof ArrowType.Int number) {
      return switch (number.getBitWidth()) {
        case 8 -> DataTypes.ByteType;
        case 16 -> DataTypes.ShortType;
        case 32 -> DataTypes.IntegerType;
        default -> DataTypes.LongType;
      };
    }
    if (type instanceof ArrowType.FloatingPoint number) {
      return number.getPrecision() == FloatingPointPrecision.SINGLE ? DataTypes.FloatType : DataTypes.DoubleType;
    }
    if (type instanceof ArrowType.List) {
      Field item = field.getChildren().get(0);
      return DataTypes.createArrayType(type(item), item.isNullable());
    }
    if (type instanceof ArrowType.Decimal decimal) {
      return DataTypes.createDecimalType(decimal.getPrecision(), decimal.getScale());
    }
    return switch (type.getTypeID()) {
      case Bool -> DataTypes.BooleanType;
      case Utf8 -> DataTypes.StringType;
      case Null -> DataTypes.NullType;
      case Struct -> struct(field.getChildren());
      default -> throw new IllegalStateException("column " + field.getName() + ": no type of a table: " + type);
    };
  }

  private static List<Field> fields(StructType schema) {
    List<Field> out = new ArrayList<>();
    for (StructField field : schema.fields()) {
      out.add(field(field.name(), field.dataType(), field.nullable()));
    }
    return out;
  }

  private static Field field(String name, DataType type, boolean nullable) {
    if (type instanceof StructType struct) {
      return of(name, ArrowType.Struct.INSTANCE, nullable, fields(struct));
    }
    if (type instanceof ArrayType array) {
      return of(name, ArrowType.List.INSTANCE, nullable, List.of(field("item", array.elementType(), array.containsNull())));
    }
    return of(name, primitive(name, type), nullable, null);
  }

  private static Field of(String name, ArrowType type, boolean nullable, List<Field> children) {
    return new Field(name, new FieldType(nullable, type, null), children);
  }

  private static ArrowType primitive(String name, DataType type) {
    if (type instanceof DecimalType decimal && decimal.scale() == 0) {
      return new ArrowType.Decimal(decimal.precision(), 0, 128);
    }
    return switch (type.typeName()) {
      case "boolean" -> ArrowType.Bool.INSTANCE;
      case "byte" -> new ArrowType.Int(8, true);
      case "short" -> new ArrowType.Int(16, true);
      case "integer" -> new ArrowType.Int(32, true);
      case "long" -> new ArrowType.Int(64, true);
      case "float" -> new ArrowType.FloatingPoint(FloatingPointPrecision.SINGLE);
      case "double" -> new ArrowType.FloatingPoint(FloatingPointPrecision.DOUBLE);
      case "string" -> ArrowType.Utf8.INSTANCE;
      case "void" -> ArrowType.Null.INSTANCE;
      default -> throw new IllegalArgumentException("root: column " + name + ": no file holds values of type " + type.sql());
    };
  }
}
