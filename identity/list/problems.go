package list

import (
	"fmt"
	"strings"
)

// MaxProblems is how many of the things that are wrong are told one by one.
const MaxProblems = 1000

// Problem is one thing that is wrong with a file.
type Problem struct {
	Line   int    `json:"line"` // from 1; 0: the file as a whole
	Text   string `json:"text"`
	German string `json:"german"`
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
	List  []Problem `json:"list"` // the first MaxProblems, by line
	Total int       `json:"total"`
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

// add notes a problem; both texts get the same arguments.
func (p *Problems) add(line int, english, german string, args ...any) {
	p.note(Problem{Line: line, Text: fmt.Sprintf(english, args...), German: fmt.Sprintf(german, args...)})
}

func (p *Problems) note(one Problem) {
	p.Total++
	if len(p.List) < MaxProblems {
		p.List = append(p.List, one)
	}
}

// FileError is the error about a file that is no table at all. It wraps [ErrFile].
type FileError struct {
	Text   string
	German string

	cause error // nil: none but ErrFile
}

// Error implements error.
func (e *FileError) Error() string { return ErrFile.Error() + ": " + e.Text }

// Unwrap returns ErrFile, and what else it is about.
func (e *FileError) Unwrap() []error {
	if e.cause == nil {
		return []error{ErrFile}
	}
	return []error{ErrFile, e.cause}
}

// refused returns the error about a file; both texts get the same arguments, an error among which
// it wraps.
func refused(english, german string, args ...any) *FileError {
	e := &FileError{Text: fmt.Sprintf(english, args...), German: fmt.Sprintf(german, args...)}
	for _, one := range args {
		if cause, ok := one.(error); ok {
			e.cause = cause
		}
	}
	return e
}

// err returns p as an error; nil if nothing is wrong.
func (p *Problems) err() error {
	if p.Total == 0 {
		return nil
	}
	return p
}
