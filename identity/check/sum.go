package check

import (
	"crypto/sha256"
	"fmt"

	"mailcutover/routing"
)

// Sum names what was found: of which list, and of each of its rows, in the list's order. When
// and in which lines of a file is no part of it, so the same list, compared with the same
// things again, has the same sum.
func (r *Result) Sum() routing.Digest {
	h := sha256.New()
	fmt.Fprintf(h, "mailcutover check 1\n%s %s %q\n", r.Digest, r.Agency, r.List)
	for i := range r.Rows {
		v := &r.Rows[i]
		fmt.Fprintf(h, "%s %q %q %s\n", v.Row.ID, v.Row.Address, v.Row.Account, v.Row.Agency)
		for _, f := range v.Findings {
			fmt.Fprintf(h, " %s %q %s %q %s\n", f.Code, f.Source, f.Owner, f.Address, f.Agency)
		}
	}
	for i := range r.Permutations {
		p := &r.Permutations[i]
		fmt.Fprintf(h, "%s %s %d\n", p.Column, p.How, len(p.Pairs))
	}
	return routing.Digest(h.Sum(nil))
}

// MarshalText implements encoding.TextMarshaler.
func (c Code) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// MarshalText implements encoding.TextMarshaler.
func (c Column) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// MarshalText implements encoding.TextMarshaler.
func (h How) MarshalText() ([]byte, error) { return []byte(h.String()), nil }
