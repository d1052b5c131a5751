package sapwood.hadoop;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InterruptedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import sapwood.spark.Natives;
import sapwood.spark.SapwoodException;

/**
 * The C library's files, as handles. Every call that may wait takes a cancel flag: four bytes that another thread sets to end the wait. {@link #call} gives
 * it one that is set when the calling thread is interrupted, as Spark does with a task that is killed.
 */
final class NativeFiles {
  static {
    Natives.load();
  }

  private NativeFiles() {}

  // ---- Reading: a source may be used from several threads at once, but is closed once nobody uses it ----

  static native long open(byte[] url, ByteBuffer cancel);

  static native void close(long source);

  static native long length(long source);

  /** Requests, ranges that were asked for, bytes received, requests sent again. */
  static native long[] cost(long source);

  /** For small ones: read through blocks that are held in memory. */
  static native void read(long source, long position, byte[] to, int at, int length, ByteBuffer cancel);

  /** Sends for ranges and does not wait. The fetch is released before its source is closed. */
  static native long fetch(long source, long[] positions, int[] lengths);

  static native void await(long fetch, ByteBuffer cancel);

  /** Part of the bytes of one range, after await. */
  static native void copy(long fetch, int index, int from, byte[] to, int at, int length);

  static native void copyDirect(long fetch, int index, int from, ByteBuffer to, int at, int length);

  /** Never waits. */
  static native void release(long fetch);

  // ---- Writing: for one thread at a time ----

  static native long create(byte[] url, ByteBuffer cancel);

  /** The first bytes of a direct buffer. */
  static native void write(long sink, ByteBuffer data, int length, ByteBuffer cancel);

  /** Gives the file its name, or fails. */
  static native void commit(long sink, ByteBuffer cancel);

  /** Ends a sink, and removes what was not committed. Never waits. */
  static native void discard(long sink);

  // ---- Names. Numbers: length, seconds since 1970, 1 for a folder ----

  static native long[] stat(byte[] url, ByteBuffer cancel);

  /** {String[] names, long[] numbers, three a name} */
  static native Object[] list(byte[] url, ByteBuffer cancel);

  static native void rename(byte[] from, byte[] to, boolean replace, ByteBuffer cancel);

  static native void remove(byte[] url, boolean recursive, ByteBuffer cancel);

  static native void makeFolder(byte[] url, ByteBuffer cancel);

  // ---- Calling ----

  /** What is done with a cancel flag. */
  interface Call<T> {
    T run(ByteBuffer cancel);
  }

  /** Runs a native call, which ends with InterruptedIOException soon after this thread is interrupted. */
  static <T> T call(Call<T> call) throws IOException {
    Waiting here = Waiting.MINE.get();
    here.cancel.putInt(0, Thread.currentThread().isInterrupted() ? 1 : 0);
    Waiting.begin(here);
    try {
      return call.run(here.cancel);
    } catch (SapwoodException failure) {
      throw asIOException(failure);
    } finally {
      Waiting.end(here);
    }
  }

  /** A cancel flag that is not set. */
  static ByteBuffer flag() {
    return ByteBuffer.allocateDirect(Integer.BYTES).order(ByteOrder.nativeOrder());
  }

  static IOException asIOException(SapwoodException failure) {
    IOException out =
        switch (failure.status()) {
          case "not found" -> new FileNotFoundException(failure.getMessage());
          case "cancelled" -> new InterruptedIOException(failure.getMessage());
          default -> new IOException(failure.getMessage());
        };
    out.initCause(failure);
    return out;
  }

  /** A thread inside a native call. One more thread looks ten times a second whether it has been interrupted, as long as there are any. */
  private static final class Waiting {
    static final ThreadLocal<Waiting> MINE = ThreadLocal.withInitial(Waiting::new);
    private static final long LOOK_MILLISECONDS = 100;
    private static final Set<Waiting> ALL = ConcurrentHashMap.newKeySet();
    private static volatile boolean asleep = true;

    static {
      Thread watcher = new Thread(Waiting::watch, "sapwood-interrupts");
      watcher.setDaemon(true);
      watcher.start();
    }

    private final Thread thread = Thread.currentThread();
    private final ByteBuffer cancel = flag();

    static void begin(Waiting here) {
      ALL.add(here);
      if (asleep) {
        synchronized (ALL) {
          ALL.notifyAll();
        }
      }
    }

    static void end(Waiting here) {
      ALL.remove(here);
    }

    private static void watch() {
      try {
        while (true) {
          synchronized (ALL) {
            asleep = true;
            while (ALL.isEmpty()) {
              ALL.wait();
            }
            asleep = false;
          }
          Thread.sleep(LOOK_MILLISECONDS);
          for (Waiting one : ALL) {
            if (one.thread.isInterrupted()) {
              one.cancel.putInt(0, 1);
            }
          }
        }
      } catch (InterruptedException end) {
        Thread.currentThread().interrupt(); // nobody does
      }
    }
  }
}
