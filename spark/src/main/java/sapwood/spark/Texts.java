package sapwood.spark;

import java.nio.charset.StandardCharsets;

/** Texts as the C library has them: UTF-8 bytes. */
public final class Texts {
  private Texts() {}

  /** Bytes that are not UTF-8 become U+FFFD. Called by the JNI code too. */
  public static String decode(byte[] bytes) {
    return new String(bytes, StandardCharsets.UTF_8);
  }

  /** Null stays null. */
  public static byte[] encode(String text) {
    return text == null ? null : text.getBytes(StandardCharsets.UTF_8);
  }

  /** A table of texts. */
  public static byte[][] encode(String[] texts) {
    byte[][] out = new byte[texts.length][];
    for (int i = 0; i < texts.length; i++) {
      out[i] = encode(texts[i]);
    }
    return out;
  }
}
