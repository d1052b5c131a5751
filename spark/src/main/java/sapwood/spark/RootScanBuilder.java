package sapwood.spark;

import java.util.ArrayList;
import java.util.List;
import org.apache.spark.sql.connector.expressions.filter.Predicate;
import org.apache.spark.sql.connector.read.Scan;
import org.apache.spark.sql.connector.read.SupportsPushDownRequiredColumns;
import org.apache.spark.sql.connector.read.SupportsPushDownV2Filters;
import org.apache.spark.sql.types.StructType;

/** Takes down what a query needs: columns and fields of them, and comparisons. */
final class RootScanBuilder implements SupportsPushDownRequiredColumns, SupportsPushDownV2Filters {
  private final RootTable table;
  private StructType wanted;
  private final List<String> conditions = new ArrayList<>();
  private Predicate[] pushed = new Predicate[0];

  RootScanBuilder(RootTable table) {
    this.table = table;
    this.wanted = table.schema();
  }

  @Override
  public void pruneColumns(StructType required) {
    wanted = required;
  }

  /** Spark looks at all of them again: nulls and NaN are ordered there in another way than in C. What is taken out here is only never wanted. */
  @Override
  public Predicate[] pushPredicates(Predicate[] predicates) {
    List<Predicate> taken = new ArrayList<>();
    Conditions translator = new Conditions(table.schema());
    for (Predicate predicate : predicates) {
      String condition = translator.translate(predicate);
      if (condition != null) {
        conditions.add(condition);
        taken.add(predicate);
      }
    }
    pushed = taken.toArray(new Predicate[0]);
    return predicates;
  }

  @Override
  public Predicate[] pushedPredicates() {
    return pushed;
  }

  @Override
  public Scan build() {
    return new RootScan(table, wanted, conditions.toArray(new String[0]));
  }
}
