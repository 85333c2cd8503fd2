package ledger

import "github.com/cespare/xxhash/v2"

// Digest tells one message from another: xxHash64 of its bytes as they are handed over, our
// Received line included. The zero value is that of no message: not known.
//
// It costs a fifth of what SHA-256 does, which was the largest part of a ledger's price. It is
// no proof against somebody who makes two messages with one digest; who does that confuses
// nobody about mail but his own, since a record also has its transaction.
type Digest uint64

// Digester computes a [Digest] as a message passes. The zero value is not ready: call Reset
// first. It belongs to one goroutine.
type Digester struct{ d xxhash.Digest }

// Reset begins another message.
func (d *Digester) Reset() { d.d.Reset() }

// Write adds bytes of the message. It never fails.
func (d *Digester) Write(p []byte) (int, error) { return d.d.Write(p) }

// Digest returns the digest of what was written since Reset.
func (d *Digester) Digest() Digest {
	return Digest(max(d.d.Sum64(), 1))
}
