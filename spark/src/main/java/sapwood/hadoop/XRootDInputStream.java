package sapwood.hadoop;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.Consumer;
import java.util.function.IntFunction;
import org.apache.hadoop.fs.ByteBufferReadable;
import org.apache.hadoop.fs.FSInputStream;
import org.apache.hadoop.fs.FileRange;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.StreamCapabilities;
import org.apache.hadoop.fs.VectoredReadUtils;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import sapwood.spark.SapwoodException;

/**
 * Reads a remote file. What is read on and on is fetched ahead in windows, several under way; vectored reads become XRootD's vector reads; small reads come from
 * blocks that the C library holds. Positioned and vectored reads may be made from several threads at once.
 */
final class XRootDInputStream extends FSInputStream implements ByteBufferReadable, StreamCapabilities {
  private static final Logger LOG = LoggerFactory.getLogger(XRootDInputStream.class);
  private static final int WINDOW = 4 << 20, WINDOWS = 4; // bytes; under way at once
  private static final int SMALL = 128 << 10; // bytes that are read through the library's blocks
  private static final long RUN = 256 << 10; // bytes read without a jump, after which it is believed to go on
  private static final int GROUP = 16 << 20; // bytes of a vectored read that are one fetch; two are under way
  private static final int GAP = 64 << 10; // bytes between ranges that the library reads along

  /** How the reader says that it reads. */
  enum Policy {
    /** Ahead once it has read on for a while. */
    ADAPTIVE,
    /** Ahead at once. */
    SEQUENTIAL,
    /** Never ahead. */
    RANDOM;

    /** The first policy that is known of a list such as "parquet, columnar, vector, random". */
    static Policy of(String list) {
      for (String word : list.toLowerCase(Locale.ROOT).split("[,\\s]+")) {
        switch (word) {
          case "sequential", "whole-file", "csv", "json", "avro", "distcp":
            return SEQUENTIAL;
          case "random", "vector", "columnar", "parquet", "orc", "hbase":
            return RANDOM;
          case "adaptive", "default":
            return ADAPTIVE;
          default:
        }
      }
      return ADAPTIVE;
    }
  }

  /** Bytes on their way. */
  private record Window(long fetch, long start, long end) {}

  private final String name;
  private final String query;
  private final Policy policy;
  private final FileSystem.Statistics statistics;
  private final long length;
  private final long source;
  private final ByteBuffer cancel = NativeFiles.flag(); // set when it is closed; for the threads that wait for vectored reads
  private int users = 1; // this stream, and each call that uses the source; the last one closes it. With `cancel` as their lock
  private boolean closed;

  private long position; // of the next byte
  private long run; // bytes before it that were read one behind the other
  private final Deque<Window> windows = new ArrayDeque<>(); // one behind the other

  XRootDInputStream(String name, String query, long source, Policy policy, FileSystem.Statistics statistics) {
    this.name = name;
    this.query = query;
    this.source = source;
    this.policy = policy;
    this.statistics = statistics;
    this.length = NativeFiles.length(source);
  }

  // ---- The source, for as long as somebody uses it ----

  private void enter() throws IOException {
    synchronized (cancel) {
      if (closed) {
        throw new IOException(name + ": is closed");
      }
      users++;
    }
  }

  private void leave() {
    synchronized (cancel) {
      if (--users > 0) {
        return;
      }
    }
    dropWindows();
    long[] cost = NativeFiles.cost(source);
    statistics.incrementReadOps((int) cost[0]);
    LOG.debug("{}: {} requests ({} of them again) for {} ranges, {} bytes received", name, cost[0], cost[3], cost[1], cost[2]);
    NativeFiles.close(source);
  }

  private <T> T call(NativeFiles.Call<T> call) throws IOException {
    try {
      return NativeFiles.call(call);
    } catch (IOException failure) {
      throw XRootDFileSystem.withoutQuery(failure, query);
    }
  }

  /** Never waits: neither for the server nor for another thread that is reading. */
  @Override
  public void close() {
    synchronized (cancel) {
      if (closed) {
        return;
      }
      closed = true;
    }
    cancel.putInt(0, 1);
    leave();
  }

  // ---- Reading on ----

  @Override
  public synchronized long getPos() {
    return position;
  }

  @Override
  public synchronized void seek(long to) throws IOException {
    if (to < 0 || to > length) {
      throw new EOFException(name + ": position " + to + " is not inside its " + length + " bytes");
    }
    if (to < position || to > position + SMALL) {
      run = 0;
    }
    position = to;
  }

  @Override
  public boolean seekToNewSource(long to) {
    return false;
  }

  @Override
  public synchronized int available() {
    return (int) Math.min(Integer.MAX_VALUE, length - position);
  }

  @Override
  public int read() throws IOException {
    byte[] one = new byte[1];
    return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
  }

  @Override
  public synchronized int read(byte[] to, int at, int wanted) throws IOException {
    return readOn(to, null, at, wanted);
  }

  @Override
  public synchronized int read(ByteBuffer to) throws IOException {
    int read = to.hasArray() ? readOn(to.array(), null, to.arrayOffset() + to.position(), to.remaining()) : readOn(null, to, to.position(), to.remaining());
    if (read > 0) {
      to.position(to.position() + read);
    }
    return read;
  }

  /** Into one of the two. */
  private int readOn(byte[] array, ByteBuffer direct, int at, int wanted) throws IOException {
    enter();
    try {
      if (wanted == 0) {
        return 0;
      }
      if (position >= length) {
        return -1;
      }
      int count = (int) Math.min(wanted, length - position);
      boolean ahead = policy == Policy.SEQUENTIAL || (policy == Policy.ADAPTIVE && run >= RUN);
      forget();
      if (windows.isEmpty() && !ahead && count <= SMALL && array != null) {
        call(
            flag -> {
              NativeFiles.read(source, position, array, at, count, flag);
              return null;
            });
        return moved(count);
      }
      fill(ahead ? length : position + count);
      Window head = windows.peek();
      call(
          flag -> {
            NativeFiles.await(head.fetch, flag);
            return null;
          });
      int part = (int) Math.min(count, head.end - position);
      copy(head.fetch, 0, (int) (position - head.start), array, direct, at, part);
      return moved(part);
    } catch (IOException failure) {
      dropWindows(); // another try begins anew
      throw failure;
    } finally {
      leave();
    }
  }

  private int moved(int count) {
    position += count;
    run += count;
    statistics.incrementBytesRead(count);
    forget();
    return count;
  }

  /** Windows that are behind the position, or do not lead to it. */
  private void forget() {
    boolean leads = !windows.isEmpty() && windows.peek().start <= position && windows.peekLast().end > position;
    while (!windows.isEmpty() && (!leads || windows.peek().end <= position)) {
      NativeFiles.release(windows.remove().fetch);
    }
  }

  private void fill(long until) {
    long from = windows.isEmpty() ? position : windows.peekLast().end;
    while (windows.size() < WINDOWS && from < until) {
      int bytes = (int) Math.min(WINDOW, until - from);
      windows.add(new Window(NativeFiles.fetch(source, new long[] {from}, new int[] {bytes}), from, from + bytes));
      from += bytes;
    }
  }

  private void dropWindows() {
    for (Window window : windows) {
      NativeFiles.release(window.fetch);
    }
    windows.clear();
  }

  private static void copy(long fetch, int index, int from, byte[] array, ByteBuffer direct, int at, int count) {
    if (array != null) {
      NativeFiles.copy(fetch, index, from, array, at, count);
    } else if (direct.isReadOnly() || !direct.isDirect() || count > direct.capacity() - at) { // C would not look
      throw new IllegalArgumentException("a buffer of " + count + " bytes to write to was expected, not " + direct);
    } else {
      NativeFiles.copyDirect(fetch, index, from, direct, at, count);
    }
  }

  // ---- Reading here and there ----

  @Override
  public int read(long from, byte[] to, int at, int wanted) throws IOException {
    validatePositionedReadArgs(from, to, at, wanted);
    if (wanted == 0) {
      return 0;
    }
    if (from >= length) {
      return -1;
    }
    int count = (int) Math.min(Math.min(wanted, GROUP), length - from);
    enter();
    try {
      if (count <= SMALL) {
        call(
            flag -> {
              NativeFiles.read(source, from, to, at, count, flag);
              return null;
            });
      } else {
        long fetch = NativeFiles.fetch(source, new long[] {from}, new int[] {count});
        try {
          call(
              flag -> {
                NativeFiles.await(fetch, flag);
                return null;
              });
          NativeFiles.copy(fetch, 0, 0, to, at, count);
        } finally {
          NativeFiles.release(fetch);
        }
      }
      statistics.incrementBytesRead(count);
      return count;
    } finally {
      leave();
    }
  }

  @Override
  public int minSeekForVectorReads() {
    return GAP;
  }

  @Override
  public int maxReadSizeForVectorReads() {
    return GROUP;
  }

  @Override
  public void readVectored(List<? extends FileRange> ranges, IntFunction<ByteBuffer> allocate) throws IOException {
    readVectored(ranges, allocate, buffer -> {});
  }

  /** Returns at once; the ranges get their bytes in the order of the file. */
  @Override
  public void readVectored(List<? extends FileRange> ranges, IntFunction<ByteBuffer> allocate, Consumer<ByteBuffer> giveBack) throws IOException {
    List<? extends FileRange> sorted = VectoredReadUtils.validateAndSortRanges(ranges, Optional.of(length));
    long bytes = 0;
    for (FileRange range : sorted) {
      range.setData(new CompletableFuture<>());
      bytes += range.getLength();
    }
    enter();
    statistics.incrementBytesRead(bytes);
    try {
      Readers.ALL.execute(
          () -> {
            try {
              new Vectored(sorted, allocate, giveBack).read();
            } finally {
              leave();
            }
          });
    } catch (RuntimeException | Error failure) { // no thread to be had
      leave();
      throw failure;
    }
  }

  /** Threads that wait for vectored reads, and end when there are none. */
  private static final class Readers {
    static final ExecutorService ALL =
        Executors.newCachedThreadPool(
            body -> {
              Thread thread = new Thread(body, "sapwood-vectored");
              thread.setDaemon(true);
              return thread;
            });
  }

  /** One vectored read: groups of ranges, the next one on its way while one is handed out. */
  private final class Vectored {
    private final List<? extends FileRange> ranges;
    private final IntFunction<ByteBuffer> allocate;
    private final Consumer<ByteBuffer> giveBack;
    private int next; // range of the next group

    Vectored(List<? extends FileRange> ranges, IntFunction<ByteBuffer> allocate, Consumer<ByteBuffer> giveBack) {
      this.ranges = ranges;
      this.allocate = allocate;
      this.giveBack = giveBack;
    }

    /** The ranges [first, end) in one fetch. */
    private record Group(long fetch, int first, int end) {}

    void read() {
      List<Group> underWay = new ArrayList<>();
      int done = 0;
      try {
        while (done < ranges.size()) {
          while (underWay.size() < 2 && next < ranges.size()) {
            underWay.add(start());
          }
          Group group = underWay.get(0);
          NativeFiles.await(group.fetch, cancel);
          for (; done < group.end; done++) {
            hand(group, done);
          }
          NativeFiles.release(underWay.remove(0).fetch);
        }
      } catch (Throwable failure) { // those who wait shall learn of any
        Throwable told = failure instanceof SapwoodException ours ? XRootDFileSystem.withoutQuery(NativeFiles.asIOException(ours), query) : failure;
        for (; done < ranges.size(); done++) {
          ranges.get(done).getData().completeExceptionally(told);
        }
      } finally {
        for (Group group : underWay) {
          NativeFiles.release(group.fetch);
        }
      }
    }

    private Group start() {
      int first = next;
      for (long bytes = 0; next < ranges.size() && (next == first || bytes + ranges.get(next).getLength() <= GROUP); next++) {
        bytes += ranges.get(next).getLength();
      }
      long[] positions = new long[next - first];
      int[] lengths = new int[next - first];
      for (int i = 0; i < positions.length; i++) {
        positions[i] = ranges.get(first + i).getOffset();
        lengths[i] = ranges.get(first + i).getLength();
      }
      return new Group(NativeFiles.fetch(source, positions, lengths), first, next);
    }

    private void hand(Group group, int index) {
      int count = ranges.get(index).getLength();
      ByteBuffer buffer = allocate.apply(count);
      try {
        if (buffer.hasArray()) {
          copy(group.fetch, index - group.first, 0, buffer.array(), null, buffer.arrayOffset() + buffer.position(), count);
        } else {
          copy(group.fetch, index - group.first, 0, null, buffer, buffer.position(), count);
        }
      } catch (RuntimeException failure) {
        giveBack.accept(buffer);
        throw failure;
      }
      buffer.limit(buffer.position() + count);
      ranges.get(index).getData().complete(buffer);
    }
  }

  @Override
  public boolean hasCapability(String capability) {
    return switch (capability.toLowerCase(Locale.ROOT)) {
      case VECTOREDIO, READBYTEBUFFER, READAHEAD -> true;
      default -> false;
    };
  }

  @Override
  public String toString() {
    return "XRootDInputStream{" + name + ", " + length + " bytes, at " + getPos() + "}";
  }
}
