package table

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"mailcutover/routing"
)

// Limits of a change. A list that is longer goes into several changes.
const (
	MaxIDBytes   = 200    // of Change.ID
	MaxTextBytes = 4096   // of Who, of What and of Reason
	MaxRecords   = 10_000 // of all kinds together

	MaxDetailBytes = 64 << 10 // of Operation.Detail, and of Document.Text
)

// KeptIDs is the number of changes whose ids a table remembers.
const KeptIDs = 10_000

// Check reports what is wrong with c itself, whatever the table holds, by an error that
// wraps [ErrBadChange] and names the record. Drivers call it first.
func (c *Change) Check() error {
	if len(c.ID) < 1 || len(c.ID) > MaxIDBytes {
		return fmt.Errorf("%w: id %q: want 1 to %d bytes", ErrBadChange, c.ID, MaxIDBytes)
	}
	for i := 0; i < len(c.ID); i++ {
		if c.ID[i] < ' ' || c.ID[i] > '~' {
			return fmt.Errorf("%w: id %q: want printable ASCII", ErrBadChange, c.ID)
		}
	}
	texts := []struct{ name, value string }{{"who", c.Who}, {"what", c.What}, {"reason", c.Reason}}
	for _, t := range texts {
		if len(t.value) > MaxTextBytes || !utf8.ValidString(t.value) {
			return fmt.Errorf("%w: %s: %s: want at most %d bytes of UTF-8", ErrBadChange, c.ID, t.name, MaxTextBytes)
		}
	}
	others := len(c.Members) + len(c.Operations) + len(c.Freezes) + len(c.Documents)
	switch n := len(c.Agencies) + len(c.Domains) + len(c.Fixed) + others; {
	case n == 0 && !c.Guard.EndRejoin:
		return fmt.Errorf("%w: %s: no record", ErrBadChange, c.ID)
	case n > MaxRecords:
		return fmt.Errorf("%w: %s: %d records: want at most %d", ErrBadChange, c.ID, n, MaxRecords)
	case c.NamesTouched() && c.Mapped == 0:
		return c.UncheckedNames()
	}
	seen := make(map[string]bool, len(c.Agencies))
	record := func(kind, name string) error {
		if name == "" || !utf8.ValidString(name) || seen[kind+name] {
			return fmt.Errorf("%w: %s: %s %q: want a name that stands once", ErrBadChange, c.ID, kind, name)
		}
		seen[kind+name] = true
		return nil
	}
	for i := range c.Agencies {
		if _, err := routing.ParseAgencyID(string(c.Agencies[i].ID)); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrBadChange, c.ID, err)
		}
		if err := record("agency ", string(c.Agencies[i].ID)); err != nil {
			return err
		}
	}
	for _, d := range c.Domains {
		if err := record("domain ", d.Name); err != nil {
			return err
		}
	}
	for _, f := range c.Fixed {
		if err := record("fixed address ", string(f.Address)); err != nil {
			return err
		}
	}
	for _, m := range c.Members {
		if err := record("member ", string(m.Node)); err != nil {
			return err
		}
	}
	for i := range c.Operations {
		if err := record("operation ", string(c.Operations[i].ID)); err != nil {
			return err
		}
		if n := len(c.Operations[i].Detail); n > MaxDetailBytes {
			return fmt.Errorf("%w: %s: operation %s has %d bytes of detail: want at most %d", ErrBadChange, c.ID, c.Operations[i].ID, n, MaxDetailBytes)
		}
	}
	for _, f := range c.Freezes {
		if err := record("freeze ", "of "+string(f.Agency)); err != nil {
			return err
		}
	}
	for _, d := range c.Documents {
		if err := record("document ", d.Key); err != nil {
			return err
		}
		if len(d.Key) > MaxIDBytes || strings.ContainsFunc(d.Key, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fmt.Errorf("%w: %s: document %q: want a key of at most %d bytes of printable ASCII", ErrBadChange, c.ID, d.Key, MaxIDBytes)
		}
		if len(d.Text) > MaxDetailBytes || !utf8.ValidString(d.Text) {
			return fmt.Errorf("%w: %s: document %s of %d bytes: want at most %d of UTF-8", ErrBadChange, c.ID, d.Key, len(d.Text), MaxDetailBytes)
		}
	}
	return nil
}

// NamesTouched reports whether c sets domains or fixed addresses. Whether it changes a
// mapping as well, only the table knows.
func (c *Change) NamesTouched() bool { return len(c.Domains) > 0 || len(c.Fixed) > 0 }

// UncheckedNames is the error for a change that touches names without saying at which
// revision they were checked.
func (c *Change) UncheckedNames() error {
	return fmt.Errorf("%w: %s: it touches names, but Mapped is not set", ErrBadChange, c.ID)
}

// Digest returns a digest of what c does: of everything in it but Incarnation, Term and
// Guard. Two changes with one id are the same if their digests are.
func (c *Change) Digest() routing.Digest {
	d := *c
	d.Incarnation, d.Term, d.Guard = "", 0, Guard{}
	b, err := json.Marshal(d)
	if err != nil {
		// The types have no value that JSON lacks, and none of their methods fails.
		panic("digest of a change: " + err.Error())
	}
	return sha256.Sum256(b)
}
