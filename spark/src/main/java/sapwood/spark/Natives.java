package sapwood.spark;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The C library inside this jar. It is unpacked once a process, into a folder that only its user can read and that goes when the process ends, and
 * loaded from there; plug-ins for remote files lie beside it and are opened by it when they are needed.
 */
public final class Natives {
  private static final Logger LOG = LoggerFactory.getLogger(Natives.class);

  private Natives() {}

  /** Loads the library at the first call. A class with native methods calls this before it uses any of them. */
  public static void load() {
    if (Holder.problem != null) {
      throw new UnsatisfiedLinkError(Holder.problem);
    }
  }

  /** The version of the library, such as "0.1.0". */
  public static String version() {
    load();
    return libraryVersion();
  }

  /** Its optional parts, one a line: a name, a tab, and "yes" or "no" with a reason. */
  public static String parts() {
    load();
    return libraryParts();
  }

  private static native String libraryVersion();

  private static native String libraryParts();

  /** Makes the JVM load at most once, and remembers why it did not. */
  private static final class Holder {
    static final String problem = unpack();

    private static String unpack() {
      String arch = System.getProperty("os.arch");
      String platform = System.getProperty("os.name").toLowerCase().replace(' ', '-') + "-" + ("amd64".equals(arch) ? "x86_64" : arch);
      String base = "/native/" + platform + "/";
      try {
        List<String> names = list(base);
        if (names.isEmpty()) {
          return "sapwood: this jar holds no native library for " + platform + "; build it there with `ninja spark`, or add the one of that machine";
        }
        Path folder = Files.createTempDirectory("sapwood-");
        Runtime.getRuntime().addShutdownHook(new Thread(() -> remove(folder)));
        for (String name : names) {
          try (InputStream in = Natives.class.getResourceAsStream(base + name)) {
            Files.copy(in, folder.resolve(name));
          }
        }
        // In the order of the list each finds those before it, wherever the machine's own libraries are.
        for (String name : names) {
          if (!name.startsWith("libsapwood-") || name.equals("libsapwood-jni.so")) {
            System.load(folder.resolve(name).toString());
          }
        }
        LOG.debug("sapwood {} loaded from {}", libraryVersion(), folder);
        return null;
      } catch (IOException | UnsatisfiedLinkError failure) {
        return "sapwood: the native library in this jar does not load on " + platform + ": " + failure.getMessage();
      }
    }

    private static List<String> list(String base) throws IOException {
      List<String> names = new ArrayList<>();
      try (InputStream in = Natives.class.getResourceAsStream(base + "libraries.txt")) {
        if (in == null) {
          return names;
        }
        BufferedReader reader = new BufferedReader(new InputStreamReader(in, StandardCharsets.UTF_8));
        for (String line = reader.readLine(); line != null; line = reader.readLine()) {
          names.add(line);
        }
      }
      return names;
    }

    private static void remove(Path folder) {
      try (var files = Files.list(folder)) {
        for (Path file : files.toList()) {
          Files.delete(file);
        }
        Files.delete(folder);
      } catch (IOException | UncheckedIOException left) {
        LOG.debug("{} is left behind", folder, left);
      }
    }
  }
}
