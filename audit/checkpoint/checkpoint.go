package checkpoint

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"mailcutover/audit"
)

// Checkpoint is what a node has signed about its audit log.
type Checkpoint struct {
	Head     audit.Head
	Time     time.Time  // by the node's clock, in UTC
	Count    uint64     // of this node's checkpoints, from 1
	Previous audit.Hash // of the line with Count-1; zero: there is none
	Key      KeyID
	Handover []byte // by which an earlier key says that Key follows it; usually nil

	signature []byte
	line      string
}

// version begins each line.
const version = "mcac1"

// purpose stands before the line in what is signed.
const purpose = "mailcutover audit checkpoint\n"

// ErrBadCheckpoint is wrapped by the errors of [Parse], and by those of [Verify] about lines.
var ErrBadCheckpoint = errors.New("not a checkpoint of an audit log")

// sign makes the checkpoint that follows another.
func sign(k *Key, head audit.Head, now time.Time, count uint64, previous audit.Hash, handover bool) Checkpoint {
	c := Checkpoint{Head: head, Time: now.UTC().Round(0), Count: count, Previous: previous, Key: k.ID()}
	if handover {
		c.Handover = k.handover
	}
	c.signature = ed25519.Sign(k.private, []byte(purpose+c.signed()))
	c.line = c.signed() + " " + base64Text.EncodeToString(c.signature)
	return c
}

// signed is the line up to its signature.
func (c *Checkpoint) signed() string {
	handover := "-"
	if c.Handover != nil {
		handover = base64Text.EncodeToString(c.Handover)
	}
	return strings.Join([]string{version, c.Head.String(), c.Time.Format(time.RFC3339Nano), strconv.FormatUint(c.Count, 10), c.Previous.String(), string(c.Key), handover}, " ")
}

// String returns the line without its end: version, head, time, count, digest of the line
// before, key, handover or "-", signature.
func (c *Checkpoint) String() string { return c.line }

// Hash is what the next checkpoint names as Previous.
func (c *Checkpoint) Hash() audit.Hash { return sha256.Sum256([]byte(c.line)) }

// valid reports whether a key signed it.
func (c *Checkpoint) valid(public ed25519.PublicKey) bool {
	return ed25519.Verify(public, []byte(purpose+c.signed()), c.signature)
}

// Parse reads a line. It says nothing of the signature yet: see [Verify]. Errors wrap
// [ErrBadCheckpoint].
func Parse(line string) (Checkpoint, error) {
	c, err := parse(line)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %.100q: %w", ErrBadCheckpoint, line, err)
	}
	return c, nil
}

func parse(line string) (c Checkpoint, err error) {
	f := strings.Split(line, " ")
	if len(f) != 8 {
		return c, errors.New("want 8 words: mcac1 HEAD TIME COUNT PREVIOUS KEY HANDOVER SIGNATURE")
	}
	if f[0] != version {
		return c, fmt.Errorf("version %q: want %s", f[0], version)
	}
	if c.Head, err = audit.ParseHead(f[1]); err != nil {
		return c, err
	}
	if c.Time, err = time.Parse(time.RFC3339Nano, f[2]); err != nil {
		return c, err
	}
	if c.Count, err = strconv.ParseUint(f[3], 10, 64); err != nil {
		return c, err
	}
	if err = c.Previous.UnmarshalText([]byte(f[4])); err != nil {
		return c, err
	}
	c.Time, c.Key = c.Time.UTC(), KeyID(f[5])
	if f[6] != "-" {
		if c.Handover, err = base64Text.DecodeString(f[6]); err != nil {
			return c, err
		}
	}
	if c.signature, err = base64Text.DecodeString(f[7]); err != nil {
		return c, err
	}
	c.line = c.signed() + " " + base64Text.EncodeToString(c.signature)
	switch {
	case c.line != line:
		return c, errors.New("it isn't spelled as a node spells it")
	case c.Count == 0 || (c.Count == 1) != (c.Previous == audit.Hash{}):
		return c, errors.New("its count and the line before it don't go together")
	}
	return c, nil
}
