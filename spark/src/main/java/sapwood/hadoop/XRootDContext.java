package sapwood.hadoop;

import java.io.IOException;
import java.net.URI;
import java.net.URISyntaxException;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.DelegateToFileSystem;

/** root:// and roots:// for Hadoop's FileContext, through which Spark's streaming writes its checkpoints. */
public class XRootDContext extends DelegateToFileSystem {
  /** Called by Hadoop. */
  public XRootDContext(URI uri, Configuration conf) throws IOException, URISyntaxException {
    super(uri, "roots".equals(uri.getScheme()) ? new SecureXRootDFileSystem() : new XRootDFileSystem(), conf, uri.getScheme(), true);
  }

  @Override
  public int getUriDefaultPort() {
    return XRootDFileSystem.PORT;
  }
}
