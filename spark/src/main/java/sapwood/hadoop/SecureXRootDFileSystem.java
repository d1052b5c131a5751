package sapwood.hadoop;

/** The same over TLS: <code>roots://host//path</code>. */
public class SecureXRootDFileSystem extends XRootDFileSystem {
  @Override
  public String getScheme() {
    return "roots";
  }
}
