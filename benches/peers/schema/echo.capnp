# The service of the workloads, for capnp-rpc.
@0xd1f1a8a51c1b7e42;

struct Nested {
  id @0 :UInt64;
  name @1 :Text;
  tags @2 :List(Text);
  points @3 :List(Float64);
  map @4 :List(Entry);

  struct Entry {
    key @0 :Text;
    value @1 :UInt64;
  }
}

interface Echo {
  echo @0 (bytes :Data) -> (bytes :Data);
  nested @1 (value :Nested) -> (value :Nested);
  # Items go to a capability of the client's, under the flow control of `-> stream`.
  items @2 (count :UInt64, size :UInt32, sink :Sink) -> ();
  # A capability that is only there.
  idle @3 () -> (handle :Handle);
}

interface Sink {
  push @0 (bytes :Data) -> stream;
}

interface Handle {}
