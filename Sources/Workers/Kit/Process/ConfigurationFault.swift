// What an operator has to put right before a new start makes sense.

/// An error of the configuration that only a worker can find. A worker that can't start for it says so by its exit status, which
/// is then the gateway's. The description names the key, what was found and what was expected.
public protocol ConfigurationFault: Error {}
