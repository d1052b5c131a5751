package sapwood.hadoop;

import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import org.apache.hadoop.fs.Abortable;
import org.apache.hadoop.fs.StreamCapabilities;

/** A file that is written from its beginning to its end, and has its name when it is closed. One that has failed leaves nothing. */
final class XRootDOutputStream extends OutputStream implements Abortable, StreamCapabilities {
  private static final int BUFFER = 256 << 10;

  private final String name;
  private final String query;
  private final ByteBuffer buffer = ByteBuffer.allocateDirect(BUFFER);
  private long sink; // 0: closed
  private IOException failure;
  private boolean told; // that it has failed, by close()

  XRootDOutputStream(String name, String query, long sink) {
    this.name = name;
    this.query = query;
    this.sink = sink;
  }

  private interface Step {
    void run(ByteBuffer cancel);
  }

  private void step(Step step) throws IOException {
    if (sink == 0) {
      throw failure != null ? new IOException(failure.getMessage(), failure) : new IOException(name + ": is closed");
    }
    try {
      NativeFiles.call(
          cancel -> {
            step.run(cancel);
            return null;
          });
    } catch (IOException problem) {
      failure = XRootDFileSystem.withoutQuery(problem, query);
      discard();
      throw failure;
    }
  }

  private void send() throws IOException {
    int length = buffer.position();
    if (length > 0) {
      step(cancel -> NativeFiles.write(sink, buffer, length, cancel));
      buffer.clear();
    }
  }

  @Override
  public synchronized void write(int one) throws IOException {
    write(new byte[] {(byte) one}, 0, 1);
  }

  @Override
  public synchronized void write(byte[] data, int from, int length) throws IOException {
    if (sink == 0) {
      step(cancel -> {});
    }
    for (int at = from, end = from + length; at < end; ) {
      int part = Math.min(end - at, buffer.remaining());
      buffer.put(data, at, part);
      at += part;
      if (!buffer.hasRemaining()) {
        send();
      }
    }
  }

  /** Ends, at the latest, with the C library's deadline. Closing again does nothing; after a failed write it says so once more, since nothing was made. */
  @Override
  public synchronized void close() throws IOException {
    if (sink == 0) {
      if (failure != null && !told) {
        told = true;
        throw new IOException(failure.getMessage(), failure);
      }
      return;
    }
    send();
    step(cancel -> NativeFiles.commit(sink, cancel));
    discard();
  }

  private void discard() {
    NativeFiles.discard(sink);
    sink = 0;
  }

  /** The file is not made; one that had its name stays. */
  @Override
  public synchronized AbortableResult abort() {
    boolean done = sink == 0;
    if (!done) {
      failure = new IOException(name + ": was given up");
      told = true;
      discard();
    }
    return new AbortableResult() {
      @Override
      public boolean alreadyClosed() {
        return done;
      }

      @Override
      public IOException anyCleanupException() {
        return null;
      }
    };
  }

  @Override
  public boolean hasCapability(String capability) {
    return ABORTABLE_STREAM.equalsIgnoreCase(capability);
  }
}
