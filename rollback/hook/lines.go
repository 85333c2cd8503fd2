package hook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"

	"mailcutover/routing"
)

const (
	// maxAnswer bounds what is read of an answer, in bytes: some 40 of the largest agencies.
	maxAnswer = 64 << 20

	// maxText bounds what is kept of a hook's texts, in bytes.
	maxText = 2000
)

// question is the first line that a hook gets.
type question struct {
	Hook      Kind                `json:"hook"`
	Operation routing.OperationID `json:"operation"`
	Agency    routing.AgencyID    `json:"agency"`
	Platform  routing.PlatformID  `json:"platform"`
	Attempt   int                 `json:"attempt"`   // from 1
	Mailboxes int                 `json:"mailboxes"` // lines that follow
}

func writeQuestion(w io.Writer, h *Hook, c Call, boxes []Mailbox, attempt int) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	if err := e.Encode(question{h.Kind, c.Operation, c.Agency, h.Platform, attempt, len(boxes)}); err != nil {
		return fmt.Errorf("write the question: %w", err)
	}
	for _, m := range boxes {
		if err := e.Encode(m); err != nil {
			return fmt.Errorf("write mailbox %s: %w", m.ID, err)
		}
	}
	return nil
}

// unanswered returns the results of a hook that said nothing.
func unanswered(boxes []Mailbox) []Result {
	results := make([]Result, len(boxes))
	for i, m := range boxes {
		results[i] = Result{ID: m.ID, Error: "the hook said nothing about it"}
	}
	return results
}

// readAnswer returns a result for each mailbox, in their order. A line that can't be used
// is an error: lines before it count, lines after it don't. A mailbox about which the
// answer says two different things isn't done.
func readAnswer(answer []byte, boxes []Mailbox) ([]Result, error) {
	results := unanswered(boxes)
	number := make(map[routing.MailboxID]int, len(boxes))
	for i, m := range boxes {
		number[m.ID] = i
	}
	said := make([]bool, len(boxes))
	line := 0
	for text := range bytes.Lines(answer) {
		line++
		text = bytes.TrimSpace(text)
		if len(text) == 0 {
			continue
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		var r Result
		if err := d.Decode(&r); err != nil || d.More() {
			return results, fmt.Errorf("line %d of the answer, %q: want {\"mailbox\":ID,\"ok\":true} or {\"mailbox\":ID,\"ok\":false,\"error\":TEXT}", line, printable(text))
		}
		i, asked := number[r.ID]
		switch {
		case !asked:
			return results, fmt.Errorf("line %d of the answer: nobody asked about mailbox %s", line, r.ID)
		case said[i] && results[i].OK != r.OK:
			results[i] = Result{ID: r.ID, Error: "the hook said that it is done and that it is not"}
			return results, fmt.Errorf("line %d of the answer: mailbox %s stands there twice, done and not done", line, r.ID)
		}
		said[i] = true
		if r.Error = printable([]byte(r.Error)); !r.OK && r.Error == "" {
			r.Error = "the hook didn't say why"
		}
		results[i] = r
	}
	return results, nil
}

// printable returns the end of what a hook wrote, without control characters.
func printable(b []byte) string {
	if len(b) > maxText {
		b = b[len(b)-maxText:]
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r == unicode.ReplacementChar || !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, strings.ToValidUTF8(string(b), "?")))
}
