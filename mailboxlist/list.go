package mailboxlist

import (
	"fmt"
	"slices"
	"strings"

	"mailcutover/routing"
)

// Columns are those of a list, all required, in any order. Aliases and logins hold
// several values, separated by blanks.
func Columns() []string {
	return []string{"address", "directory_id", "agency", "kind", "aliases", "logins",
		"source_address", "source_login", "target_address", "target_login", "platform"}
}

// List is what stands in a file: every row is right by itself.
type List struct {
	Mailboxes []Mailbox
	Fixed     []Fixed
}

// Mailbox is a row that names a mailbox.
type Mailbox struct {
	Line   int
	Agency routing.AgencyID
	routing.Row
}

// Fixed is a row that names a fixed address.
type Fixed struct {
	Line int
	routing.Fixed
}

// MaxProblems is how many of the things that are wrong are reported one by one.
const MaxProblems = 1000

// Problem is one thing that is wrong with a list.
type Problem struct {
	Line int // 0: the list as a whole
	Text string
}

// String returns p with its line.
func (p Problem) String() string {
	if p.Line == 0 {
		return p.Text
	}
	return fmt.Sprintf("line %d: %s", p.Line, p.Text)
}

// Problems is the error of a list that is refused.
type Problems struct {
	List  []Problem // by line, at most MaxProblems
	Total int       // how many there are
	// Header says that the first line names the wrong columns; no row was read.
	Header bool
}

// Error implements error.
func (p *Problems) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "list refused: %d wrong", p.Total)
	for _, one := range p.List {
		b.WriteString("\n" + one.String())
	}
	return b.String()
}

func (p *Problems) add(line int, format string, args ...any) {
	p.Total++
	if len(p.List) < MaxProblems {
		p.List = append(p.List, Problem{Line: line, Text: fmt.Sprintf(format, args...)})
	}
}

// err returns p, in order, if something is wrong.
func (p *Problems) err() error {
	if p.Total == 0 {
		return nil
	}
	slices.SortStableFunc(p.List, func(a, b Problem) int { return a.Line - b.Line })
	return p
}
