package spool

import (
	"fmt"
	"strings"

	"mailcutover/mail"
)

// Problem is something that could not be read, or isn't as it was written.
type Problem struct {
	Path        string             // file
	From, To    int64              // part of it; both 0: all
	Transaction mail.TransactionID // message concerned, if it is known
	What        string
	Aside       string // where it was put for a human; empty if it stayed
}

// String returns p in one line.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.Path)
	if p.To > 0 {
		fmt.Fprintf(&b, " bytes %d to %d", p.From, p.To)
	}
	if p.Transaction != "" {
		fmt.Fprintf(&b, " message %s", p.Transaction)
	}
	fmt.Fprintf(&b, ": %s", p.What)
	if p.Aside != "" {
		fmt.Fprintf(&b, "; kept as %s", p.Aside)
	}
	return b.String()
}

// Report is what a start or a check found.
type Report struct {
	Messages int
	Segments int
	Bytes    int64 // of the journal
	Problems []Problem
}
