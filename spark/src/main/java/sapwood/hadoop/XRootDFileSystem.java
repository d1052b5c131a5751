package sapwood.hadoop;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.net.URI;
import java.net.URISyntaxException;
import java.util.EnumSet;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.BlockLocation;
import org.apache.hadoop.fs.CreateFlag;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileAlreadyExistsException;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Options;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.impl.AbstractFSBuilderImpl;
import org.apache.hadoop.fs.impl.OpenFileParameters;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.util.Progressable;
import sapwood.spark.Texts;

/**
 * Files on XRootD servers, <code>root://host:port//path</code>, for Spark and whatever else reads and writes through Hadoop's FileSystem. Reading, writing, deadlines and
 * retries are the C library's (docs/access.md); so are its environment variables.
 *
 * <p>Hadoop makes one slash of several; the server is always given an absolute path. What the server wants behind a question mark (<code>authz=…</code>) is not written
 * into paths, where <code>?</code> is a wildcard, but into <code>fs.root.secret.query</code>. Settings, all optional: <code>fs.root.secret.query</code>, <code>fs.root.block.size</code> (bytes; how finely
 * files are split by what asks for it, 128 MiB).
 */
public class XRootDFileSystem extends FileSystem {
  /** The port of a server that names none. */
  static final int PORT = 1094;

  private static final long BLOCK = 128L << 20;

  private URI uri;
  private Path working;
  private String query;

  @Override
  public String getScheme() {
    return "root";
  }

  @Override
  public void initialize(URI name, Configuration conf) throws IOException {
    super.initialize(name, conf);
    setConf(conf);
    if (name.getRawAuthority() == null) {
      throw new IOException(name + ": names no server; write " + getScheme() + "://host//path");
    }
    try {
      uri = new URI(name.getScheme() + "://" + name.getRawAuthority());
    } catch (URISyntaxException wrong) {
      throw new IOException(name + ": is not a URL", wrong);
    }
    String asked = conf.getTrimmed("fs.root.secret.query", "");
    query = asked.isEmpty() || asked.startsWith("?") ? asked : "?" + asked;
    working = makeQualified(new Path("/user/" + System.getProperty("user.name")));
  }

  @Override
  public URI getUri() {
    return uri;
  }

  @Override
  protected int getDefaultPort() {
    return PORT;
  }

  @Override
  public void setWorkingDirectory(Path path) {
    working = makeQualified(path);
  }

  @Override
  public Path getWorkingDirectory() {
    return working;
  }

  @Override
  public long getDefaultBlockSize() {
    return getConf() == null ? BLOCK : getConf().getLongBytes("fs.root.block.size", BLOCK);
  }

  /** root://host//absolute/path?query, as the C library takes it. */
  private byte[] url(Path path) throws IOException {
    checkPath(path);
    String absolute = makeQualified(path).toUri().getPath();
    if (absolute.indexOf('?') >= 0) {
      throw new IOException(path + ": an XRootD path holds no question mark; what the server wants behind one belongs into fs.root.secret.query");
    }
    return Texts.encode(uri + "/" + (absolute.isEmpty() ? "/" : absolute) + query);
  }

  /** As {@link NativeFiles#call}, but no message shows the query, which may be a token. */
  private <T> T call(NativeFiles.Call<T> call) throws IOException {
    try {
      return NativeFiles.call(call);
    } catch (IOException failure) {
      throw withoutQuery(failure, query);
    }
  }

  static IOException withoutQuery(IOException failure, String query) {
    String message = failure.getMessage();
    if (query.isEmpty() || message == null || !message.contains(query)) {
      return failure;
    }
    String shown = message.replace(query, "?…");
    return failure instanceof FileNotFoundException ? new FileNotFoundException(shown) : new IOException(shown);
  }

  // ---- Looking ----

  private FileStatus status(Path path, long[] numbers, int at) {
    boolean folder = numbers[at + 2] != 0;
    return new FileStatus(folder ? 0 : numbers[at], folder, 1, folder ? 0 : getDefaultBlockSize(), numbers[at + 1] * 1000, path);
  }

  @Override
  public FileStatus getFileStatus(Path path) throws IOException {
    byte[] url = url(path);
    statistics.incrementReadOps(1);
    return status(makeQualified(path), call(cancel -> NativeFiles.stat(url, cancel)), 0);
  }

  /** Null: there is nothing. */
  private FileStatus find(Path path) throws IOException {
    try {
      return getFileStatus(path);
    } catch (FileNotFoundException nothing) {
      return null;
    }
  }

  @Override
  public FileStatus[] listStatus(Path path) throws IOException {
    byte[] url = url(path);
    Object[] found;
    statistics.incrementReadOps(1);
    try {
      found = call(cancel -> NativeFiles.list(url, cancel));
    } catch (FileNotFoundException nothing) {
      throw nothing;
    } catch (IOException failure) {
      FileStatus itself = find(path);
      if (itself == null || itself.isDirectory()) {
        throw failure;
      }
      return new FileStatus[] {itself};
    }
    String[] names = (String[]) found[0];
    long[] numbers = (long[]) found[1];
    Path folder = makeQualified(path);
    FileStatus[] out = new FileStatus[names.length];
    for (int i = 0; i < names.length; i++) {
      out[i] = status(new Path(folder, new Path(null, null, names[i])), numbers, 3 * i);
    }
    return out;
  }

  /** The server of the URL: an executor beside it is preferred, and nobody waits for one where there is none. */
  @Override
  public BlockLocation[] getFileBlockLocations(FileStatus file, long start, long length) {
    if (file == null || start < 0 || length < 0 || start >= file.getLen()) {
      return new BlockLocation[0];
    }
    String host = uri.getHost() == null ? "localhost" : uri.getHost();
    int port = uri.getPort() < 0 ? PORT : uri.getPort();
    return new BlockLocation[] {new BlockLocation(new String[] {host + ":" + port}, new String[] {host}, 0, file.getLen())};
  }

  // ---- Reading ----

  @Override
  public FSDataInputStream open(Path path, int bufferSize) throws IOException {
    return open(path, XRootDInputStream.Policy.ADAPTIVE);
  }

  private FSDataInputStream open(Path path, XRootDInputStream.Policy policy) throws IOException {
    byte[] url = url(path);
    statistics.incrementReadOps(1);
    long source = call(cancel -> NativeFiles.open(url, cancel));
    return new FSDataInputStream(new XRootDInputStream(path.toString(), query, source, policy, statistics));
  }

  /** What the reader says about its way of reading decides whether bytes are fetched ahead. */
  @Override
  protected CompletableFuture<FSDataInputStream> openFileWithOptions(Path path, OpenFileParameters parameters) throws IOException {
    AbstractFSBuilderImpl.rejectUnknownMandatoryKeys(parameters.getMandatoryKeys(), Options.OpenFileOptions.FS_OPTION_OPENFILE_STANDARD_OPTIONS, "for " + path);
    String asked = parameters.getOptions().get(Options.OpenFileOptions.FS_OPTION_OPENFILE_READ_POLICY, "");
    CompletableFuture<FSDataInputStream> out = new CompletableFuture<>();
    try {
      out.complete(open(path, XRootDInputStream.Policy.of(asked)));
    } catch (IOException failure) {
      out.completeExceptionally(failure);
    }
    return out;
  }

  // ---- Writing ----

  @Override
  public FSDataOutputStream create(Path path, FsPermission permission, boolean overwrite, int bufferSize, short replication, long blockSize, Progressable progress)
      throws IOException {
    FileStatus there = find(path);
    if (there != null && (there.isDirectory() || !overwrite)) {
      throw new FileAlreadyExistsException(path + (there.isDirectory() ? ": is a folder" : ": is there already"));
    }
    byte[] url = url(path);
    statistics.incrementWriteOps(1);
    return new FSDataOutputStream(new XRootDOutputStream(path.toString(), query, call(cancel -> NativeFiles.create(url, cancel))), statistics);
  }

  @Override
  public FSDataOutputStream createNonRecursive(
      Path path, FsPermission permission, EnumSet<CreateFlag> flags, int bufferSize, short replication, long blockSize, Progressable progress)
      throws IOException {
    if (flags.contains(CreateFlag.APPEND)) {
      return append(path, bufferSize, progress);
    }
    if (path.getParent() != null && !getFileStatus(path.getParent()).isDirectory()) {
      throw new FileNotFoundException(path.getParent() + ": is no folder");
    }
    return create(path, permission, flags.contains(CreateFlag.OVERWRITE), bufferSize, replication, blockSize, progress);
  }

  @Override
  public FSDataOutputStream append(Path path, int bufferSize, Progressable progress) {
    throw new UnsupportedOperationException(path + ": files on XRootD servers are written once, from their beginning to their end; nothing is appended to them");
  }

  @Override
  public boolean mkdirs(Path path, FsPermission permission) throws IOException {
    byte[] url = url(path);
    statistics.incrementWriteOps(1);
    try {
      call(
          cancel -> {
            NativeFiles.makeFolder(url, cancel);
            return null;
          });
    } catch (IOException failure) {
      FileStatus there = find(path);
      if (there != null && !there.isDirectory()) {
        throw new FileAlreadyExistsException(path + ": is a file, not a folder");
      }
      throw failure;
    }
    return true;
  }

  /** False: there was nothing to rename, or something has that name already. */
  @Override
  public boolean rename(Path from, Path to) throws IOException {
    FileStatus target = find(to);
    if (makeQualified(from).equals(makeQualified(to))) {
      return target != null && target.isFile();
    }
    Path place = target != null && target.isDirectory() ? new Path(to, from.getName()) : to;
    String old = makeQualified(from).toUri().getPath(), fresh = makeQualified(place).toUri().getPath();
    if (from.isRoot() || (target != null && target.isFile()) || fresh.startsWith(old + "/")) {
      return false;
    }
    try {
      rename(from, place, false);
      return true;
    } catch (FileNotFoundException nothing) {
      return false;
    } catch (IOException failure) {
      if (!place.equals(to) && find(place) != null) {
        return false;
      }
      throw failure;
    }
  }

  @Override
  @SuppressWarnings("deprecation") // the one that FileContext calls, which Spark's streaming stands on
  protected void rename(Path from, Path to, Options.Rename... options) throws IOException {
    if (find(from) == null) {
      throw new FileNotFoundException(from + ": no such file");
    }
    boolean replace = Set.of(options).contains(Options.Rename.OVERWRITE);
    FileStatus there = find(to);
    if (there != null && !replace) {
      throw new FileAlreadyExistsException(to + ": is there already");
    }
    if (there != null && there.isDirectory()) {
      delete(to, false);
    }
    rename(from, to, replace);
  }

  private void rename(Path from, Path to, boolean replace) throws IOException {
    byte[] old = url(from), fresh = url(to);
    statistics.incrementWriteOps(1);
    call(
        cancel -> {
          NativeFiles.rename(old, fresh, replace, cancel);
          return null;
        });
  }

  @Override
  public boolean delete(Path path, boolean recursive) throws IOException {
    byte[] url = url(path);
    if (makeQualified(path).isRoot()) {
      throw new IOException(path + ": is all there is on that server, and is not removed");
    }
    statistics.incrementWriteOps(1);
    try {
      call(
          cancel -> {
            NativeFiles.remove(url, recursive, cancel);
            return null;
          });
      return true;
    } catch (FileNotFoundException nothing) {
      return false;
    }
  }
}
