package sapwood.spark;

/** What the C library says went wrong: where, and what was expected. */
public final class SapwoodException extends RuntimeException {
  private static final long serialVersionUID = 1;

  private final String status;

  /** Called by the JNI code. */
  public SapwoodException(String status, String message) {
    super(message);
    this.status = status;
  }

  /** A word for the kind of failure: "not found", "bad format", …, as the C library's sap_status_name gives it. */
  public String status() {
    return status;
  }
}
