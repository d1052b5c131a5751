package sapwood.hadoop;

import org.apache.hadoop.conf.Configuration;
import org.apache.spark.SparkContext;
import org.apache.spark.sql.SparkSessionExtensions;
import org.apache.spark.sql.SparkSessionExtensionsProvider;
import scala.runtime.BoxedUnit;

/**
 * Makes root:// and roots:// known to Spark without a setting. Hadoop looks for file systems once a process, before the jars of an application (<code>spark.jars</code>,
 * <code>--jars</code>) are there; Spark looks for this class in them whenever it makes a session.
 */
public final class SparkSetup implements SparkSessionExtensionsProvider {
  @Override
  public BoxedUnit apply(SparkSessionExtensions extensions) {
    Configuration conf = SparkContext.getOrCreate().hadoopConfiguration();
    setDefault(conf, "fs.root.impl", XRootDFileSystem.class);
    setDefault(conf, "fs.roots.impl", SecureXRootDFileSystem.class);
    setDefault(conf, "fs.AbstractFileSystem.root.impl", XRootDContext.class);
    setDefault(conf, "fs.AbstractFileSystem.roots.impl", XRootDContext.class);
    return BoxedUnit.UNIT;
  }

  private static void setDefault(Configuration conf, String key, Class<?> type) {
    if (conf.get(key) == null) {
      conf.set(key, type.getName());
    }
  }
}
