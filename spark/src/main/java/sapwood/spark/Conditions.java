package sapwood.spark;

import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.List;
import org.apache.spark.sql.connector.expressions.Expression;
import org.apache.spark.sql.connector.expressions.Literal;
import org.apache.spark.sql.connector.expressions.NamedReference;
import org.apache.spark.sql.connector.expressions.filter.Predicate;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.Decimal;
import org.apache.spark.sql.types.DecimalType;
import org.apache.spark.sql.types.FloatType;
import org.apache.spark.sql.types.DoubleType;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;

/**
 * Spark's predicates in the language of the C library's conditions. A condition holds wherever its predicate is true; where the predicate is null it
 * may hold or not, elsewhere it does not. So negations, which exchange true and false and leave null alone, keep to that too.
 */
final class Conditions {
  private final StructType schema;

  Conditions(StructType schema) {
    this.schema = schema;
  }

  /** Null: it cannot be said. */
  String translate(Expression predicate) {
    if (!(predicate instanceof Predicate p)) {
      return null;
    }
    Expression[] sides = p.children();
    return switch (p.name()) {
      case "AND" -> conjunction(sides);
      case "OR" -> join(" || ", sides);
      case "NOT" -> {
        String inside = whole(sides[0]);
        yield inside == null ? null : "!" + inside;
      }
      case "IN" -> in(sides);
      case "=", "<=>", "<", "<=", ">", ">=", "<>" -> comparison(p.name(), sides[0], sides[1]);
      default -> null;
    };
  }

  /** At the top, one side of a conjunction is better than none. */
  private String conjunction(Expression[] sides) {
    String left = translate(sides[0]);
    String right = translate(sides[1]);
    if (left == null || right == null) {
      return left == null ? right : left;
    }
    return "(" + left + " && " + right + ")";
  }

  /** The same below a negation or beside another side, where no part may be left out. */
  private String whole(Expression predicate) {
    return predicate instanceof Predicate p && p.name().equals("AND") ? join(" && ", p.children()) : translate(predicate);
  }

  private String join(String operator, Expression[] sides) {
    List<String> parts = new ArrayList<>();
    for (Expression side : sides) {
      String part = whole(side);
      if (part == null) {
        return null;
      }
      parts.add(part);
    }
    return "(" + String.join(operator, parts) + ")";
  }

  private String in(Expression[] sides) {
    List<String> parts = new ArrayList<>();
    for (int i = 1; i < sides.length; i++) {
      String part = comparison("=", sides[0], sides[i]);
      if (part == null) {
        return null;
      }
      parts.add(part);
    }
    return parts.isEmpty() ? null : "(" + String.join(" || ", parts) + ")";
  }

  private String comparison(String operator, Expression left, Expression right) {
    if (left instanceof Literal<?> && right instanceof NamedReference) {
      return comparison(mirrored(operator), right, left);
    }
    if (!(left instanceof NamedReference reference) || !(right instanceof Literal<?> literal)) {
      return null;
    }
    DataType type = typeOf(reference.fieldNames());
    String value = type == null ? null : value(literal.value(), type);
    String path = String.join(".", reference.fieldNames());
    if (value == null || path.indexOf('`') >= 0 || path.indexOf('\0') >= 0) {
      return null;
    }
    boolean real = type instanceof FloatType || type instanceof DoubleType;
    String column = "`" + path + "`";
    return switch (operator) {
      case "=", "<=>" -> "(" + column + " == " + value + ")";
      case "<>" -> "(" + column + " != " + value + ")";
      // To Spark, NaN is larger than all numbers.
      case ">" -> real ? "!(" + column + " <= " + value + ")" : "(" + column + " > " + value + ")";
      case ">=" -> real ? "!(" + column + " < " + value + ")" : "(" + column + " >= " + value + ")";
      default -> "(" + column + " " + operator + " " + value + ")";
    };
  }

  private static String mirrored(String operator) {
    return switch (operator) {
      case "<" -> ">";
      case "<=" -> ">=";
      case ">" -> "<";
      case ">=" -> "<=";
      default -> operator;
    };
  }

  /** The type of a field of the table or of a struct in it; null: another kind of place. */
  private DataType typeOf(String[] names) {
    DataType type = schema;
    for (String name : names) {
      StructField found = null;
      if (type instanceof StructType struct) {
        for (StructField field : struct.fields()) {
          found = field.name().equals(name) ? field : found;
        }
      }
      if (found == null) {
        return null;
      }
      type = found.dataType();
    }
    return type;
  }

  /** The literal as text; null: it cannot be said, or compared with such a column. */
  private static String value(Object value, DataType type) {
    if (type.equals(DataTypes.StringType)) {
      return value == null ? null : quoted(value.toString());
    }
    if (type.equals(DataTypes.BooleanType)) {
      return value instanceof Boolean ? value.toString() : null;
    }
    if (value instanceof Byte || value instanceof Short || value instanceof Integer || value instanceof Long) {
      long number = ((Number) value).longValue();
      return number == Long.MIN_VALUE ? null : Long.toString(number);
    }
    if (value instanceof Float || value instanceof Double) {
      double number = ((Number) value).doubleValue();
      return Double.isFinite(number) ? Double.toString(number) : null;
    }
    if (value instanceof Decimal decimal && type instanceof DecimalType) {
      BigDecimal number = decimal.toJavaBigDecimal().stripTrailingZeros();
      return number.scale() <= 0 && number.abs().compareTo(BigDecimal.valueOf(Long.MAX_VALUE)) <= 0 ? number.toPlainString() : null;
    }
    return null;
  }

  private static String quoted(String text) {
    if (text.indexOf('\0') >= 0 || (text.indexOf('\'') >= 0 && text.indexOf('"') >= 0)) {
      return null;
    }
    String quote = text.indexOf('\'') >= 0 ? "\"" : "'";
    return quote + text + quote;
  }
}
