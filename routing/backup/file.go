package backup

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// ErrBad is wrapped by every error about the content of a file.
var ErrBad = errors.New("backup can't be used")

// format is that of the file; another one is refused.
const format = 1

// Header says what a backup is a copy of.
type Header struct {
	Format   int              `json:"format"`
	Made     time.Time        `json:"made"`   // by the node's clock
	Node     routing.NodeID   `json:"node"`   // whose copy it is
	Person   string           `json:"person"` // who asked for it
	Position routing.Position `json:"position"`
	Lineage  routing.Lineage  `json:"lineage,omitempty"`
}

// Copy is a backup that was read.
type Copy struct {
	Header Header
	Digest routing.Digest // of the file: what people agree to

	// Contents has the records and mappings. What a foundation needs besides (its id, term,
	// person and reason) is not set.
	Contents table.Foundation

	Mailboxes int
}

// line is a line of the file; one of its fields is set.
type line struct {
	Backup    *Header            `json:"backup,omitempty"`
	Agency    *routing.Agency    `json:"agency,omitempty"`
	Domain    *routing.Domain    `json:"domain,omitempty"`
	Fixed     *routing.Fixed     `json:"fixed,omitempty"`
	Member    *routing.Member    `json:"member,omitempty"`
	Operation *routing.Operation `json:"operation,omitempty"`
	Freeze    *routing.Freeze    `json:"freeze,omitempty"`
	Document  *routing.Document  `json:"document,omitempty"`
	Mapping   *mapping           `json:"mapping,omitempty"`
	End       *end               `json:"end,omitempty"`
}

// mapping is a mapping with its canonical text.
type mapping struct {
	Agency routing.AgencyID `json:"agency"`
	Digest routing.Digest   `json:"digest"`
	Text   string           `json:"text"`
}

// end is the last line.
type end struct {
	Lines  int            `json:"lines"` // between the first and this one
	SHA256 routing.Digest `json:"sha256"`
}

// writer writes lines, and sums them up.
type writer struct {
	out *bufio.Writer
	sum hash.Hash
	n   int
}

func (w *writer) line(l line) error {
	e := json.NewEncoder(io.MultiWriter(w.out, w.sum)) // ends each value with a line feed
	e.SetEscapeHTML(false)
	w.n++
	return e.Encode(l)
}

// Write writes a backup of the contents to w, and returns its digest. h's Format needn't be set.
func Write(w io.Writer, h Header, f *table.Foundation) (routing.Digest, error) {
	h.Format = format
	out := &writer{out: bufio.NewWriterSize(w, 64<<10), sum: sha256.New()}
	if err := out.contents(h, f); err != nil {
		return routing.Digest{}, fmt.Errorf("write a backup: %w", err)
	}
	digest := routing.Digest(out.sum.Sum(nil))
	if err := errors.Join(out.line(line{End: &end{Lines: out.n - 1, SHA256: digest}}), out.out.Flush()); err != nil {
		return routing.Digest{}, fmt.Errorf("write a backup: %w", err)
	}
	return digest, nil
}

func (w *writer) contents(h Header, f *table.Foundation) error {
	if err := w.line(line{Backup: &h}); err != nil {
		return err
	}
	return errors.Join(
		each(w, f.Agencies, func(r *routing.Agency) line { return line{Agency: r} }),
		each(w, f.Domains, func(r *routing.Domain) line { return line{Domain: r} }),
		each(w, f.Fixed, func(r *routing.Fixed) line { return line{Fixed: r} }),
		each(w, f.Members, func(r *routing.Member) line { return line{Member: r} }),
		each(w, f.Operations, func(r *routing.Operation) line { return line{Operation: r} }),
		each(w, f.Freezes, func(r *routing.Freeze) line { return line{Freeze: r} }),
		each(w, f.Documents, func(r *routing.Document) line { return line{Document: r} }),
		w.mappings(f.Mappings),
	)
}

func each[T any](w *writer, records []T, in func(*T) line) error {
	for i := range records {
		if err := w.line(in(&records[i])); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) mappings(all []*routing.Mapping) error {
	for _, m := range all {
		var text strings.Builder
		if _, err := m.WriteTo(&text); err != nil {
			return err
		}
		if err := w.line(line{Mapping: &mapping{m.Agency(), m.Digest(), text.String()}}); err != nil {
			return err
		}
	}
	return nil
}
