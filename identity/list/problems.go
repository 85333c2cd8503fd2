package list

import (
	"fmt"
	"strings"
)

// MaxProblems is how many of the things that are wrong are told one by one.
const MaxProblems = 1000

// Problem is one thing that is wrong with a file.
type Problem struct {
	Line int    `json:"line"` // from 1; 0: the file as a whole
	Text string `json:"text"`
}

// String returns the problem with its line.
func (p Problem) String() string {
	if p.Line == 0 {
		return p.Text
	}
	return fmt.Sprintf("line %d: %s", p.Line, p.Text)
}

// Problems is the error of [Read]: all that is wrong with a file.
type Problems struct {
	List  []Problem // the first MaxProblems, by line
	Total int
}

// Error implements error.
func (p *Problems) Error() string {
	lines := make([]string, 0, len(p.List)+1)
	for _, one := range p.List {
		lines = append(lines, one.String())
	}
	if more := p.Total - len(p.List); more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "\n")
}

func (p *Problems) add(line int, format string, args ...any) {
	p.Total++
	if len(p.List) < MaxProblems {
		p.List = append(p.List, Problem{Line: line, Text: fmt.Sprintf(format, args...)})
	}
}

// err returns p as an error; nil if nothing is wrong.
func (p *Problems) err() error {
	if p.Total == 0 {
		return nil
	}
	return p
}
