package sapwood.spark;

/** A reader of the C library: one slice after another, one thread; cancelled from any. */
final class NativeReader implements AutoCloseable {
  private long handle;

  NativeReader() {
    Natives.load();
    handle = create();
  }

  /** Opens entries [begin, end) of a file. schema: address of an ArrowSchema of the wanted columns. The slice before is closed. */
  void open(RootPartition.Slice slice, RootReaderFactory what, long schema) {
    open(handle, Texts.encode(slice.url()), Texts.encode(what.options.tree), slice.begin(), slice.end(), schema, what.lenient,
        what.options.identity, Texts.encode(what.options.where), Texts.encode(what.conditions), what.options.batchSize);
  }

  /** The next batch into the ArrowArray at that address; false: there is no more. */
  boolean next(long array) {
    return next(handle, array);
  }

  /** Ends what another thread is waiting for in open() or next(), now or later. */
  synchronized void cancel() {
    if (handle != 0) {
      cancel(handle);
    }
  }

  /** Entries read, entries kept, stored bytes, bytes decompressed, bytes received, baskets, nanoseconds decompressing: of all slices so far. */
  long[] stats() {
    return stats(handle);
  }

  @Override
  public synchronized void close() {
    if (handle != 0) {
      close(handle);
      handle = 0;
    }
  }

  private static native long create();

  private static native void open(long reader, byte[] url, byte[] tree, long begin, long end, long schema, boolean lenient, boolean identity,
      byte[] where, byte[][] hints, long batchSize);

  private static native boolean next(long reader, long array);

  private static native void cancel(long reader);

  private static native long[] stats(long reader);

  private static native void close(long reader);
}
