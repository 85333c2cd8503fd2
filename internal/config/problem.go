package config

import "strings"

// Problem is one thing that is wrong with the settings.
type Problem struct {
	Key   string // such as listeners[mx].limits.idle; empty: the file as a whole
	Value string // as it was written; empty if missing, or if it might be a secret
	Want  string // what would be right
	Hint  string // what to do, or why; may be empty
}

// String returns p in one line.
func (p Problem) String() string {
	var b strings.Builder
	if p.Key != "" {
		b.WriteString(p.Key)
		b.WriteString(": ")
	}
	if p.Value != "" {
		b.WriteString(p.Value)
		b.WriteString(": ")
	}
	b.WriteString("want ")
	b.WriteString(p.Want)
	if p.Hint != "" {
		b.WriteString(" (")
		b.WriteString(p.Hint)
		b.WriteString(")")
	}
	return b.String()
}

// Problems is the error of [Load]: everything that is wrong, one in a line; first what
// can't be read, then what doesn't fit together.
type Problems []Problem

// Error implements error.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}
