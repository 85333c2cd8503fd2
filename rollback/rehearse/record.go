package rehearse

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"mailcutover/routing"
)

// Prefix begins the keys of the documents that hold records.
const Prefix = "rehearsal/"

// Key is that of the document with an agency's last rehearsal.
func Key(agency routing.AgencyID) string { return Prefix + string(agency) }

// Record is what a rehearsal came to.
type Record struct {
	ID      string           `json:"id"` // of the rehearsal, drawn at random
	Agency  routing.AgencyID `json:"agency"`
	Began   time.Time        `json:"began"`
	Ended   time.Time        `json:"ended"`
	Version string           `json:"version"` // of the program that rehearsed
	Mapping routing.Digest   `json:"mapping"` // whose shape it was: the one in force when it began

	Mailboxes int `json:"mailboxes"` // that took part
	Of        int `json:"of"`        // that the agency has

	Cutover  Switch `json:"cutover"`
	Rollback Switch `json:"rollback"`

	Mail   Mail   `json:"mail"`
	Logins Logins `json:"logins"`

	// Passed says that both switches were done and nothing was lost, wrong, twice there or refused.
	Passed   bool     `json:"passed"`
	Problems []string `json:"problems,omitempty"` // what wasn't well, at most [MaxProblems]

	// Who and Reason are of the person that stored it; set by the API.
	Who    string `json:"who,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Switch is one of the two, as it was measured.
type Switch struct {
	Done     bool    `json:"done"`     // reported as done
	Seconds  float64 `json:"seconds"`  // from the request to the report
	Closed   float64 `json:"closed"`   // seconds that the agency was closed
	Held     int     `json:"held"`     // recipients whose mail was held meanwhile
	Replayed int     `json:"replayed"` // of them, delivered since
	PutOff   int     `json:"put_off"`  // recipients that were told to come back
}

// Mail is what became of the messages: recipients whose message was answered with 250.
type Mail struct {
	Sent       int `json:"sent"`
	Right      int `json:"right"` // once in the right mailbox on the right platform
	Wrong      int `json:"wrong"` // in another mailbox, or on the wrong platform
	Lost       int `json:"lost"`
	Duplicates int `json:"duplicates"`
	Refused    int `json:"refused"` // answered 5yz, which should never be
}

// Logins is what became of the logins.
type Logins struct {
	Right   int `json:"right"` // in the right mailbox on the right platform
	Wrong   int `json:"wrong"`
	Refused int `json:"refused"` // answered as if the password were wrong, or otherwise not as it should be
	PutOff  int `json:"put_off"` // told to come back
	Moved   int `json:"moved"`   // sessions that were ended because their mailbox moved
}

// MaxProblems is how many problems a record keeps.
const MaxProblems = 20

// ErrBadRecord is wrapped by the errors of [ParseRecord] and [Record.Check].
var ErrBadRecord = errors.New("not a record of a rehearsal")

// Kept reports whether what was counted keeps the promises: both switches done, messages and
// logins there were, and none of them was lost, wrong, twice there or refused.
func (r *Record) Kept() bool {
	return r.Cutover.Done && r.Rollback.Done && len(r.Problems) == 0 &&
		r.Mail.Sent > 0 && r.Mail.Right == r.Mail.Sent && r.Mail.Wrong+r.Mail.Lost+r.Mail.Duplicates+r.Mail.Refused == 0 &&
		r.Logins.Right > 0 && r.Logins.Wrong+r.Logins.Refused == 0
}

// Age is how long ago the rehearsal ended; negative: its clock went ahead of this one.
func (r *Record) Age(now time.Time) time.Duration { return now.Sub(r.Ended) }

// Check says what keeps r from being a record: what is missing, or contradicts itself.
func (r *Record) Check() error {
	why := ""
	switch {
	case r.Agency == "":
		why = "no agency"
	case r.ID == "":
		why = "no id"
	case r.Began.IsZero() || r.Ended.Before(r.Began):
		why = fmt.Sprintf("from %s to %s", r.Began.Format(time.RFC3339), r.Ended.Format(time.RFC3339))
	case r.Version == "":
		why = "no version"
	case r.Mapping == (routing.Digest{}):
		why = "no mapping"
	case r.Mailboxes <= 0 || r.Of < r.Mailboxes:
		why = fmt.Sprintf("%d of %d mailboxes", r.Mailboxes, r.Of)
	case negative(r):
		why = "a count or a duration is negative"
	case len(r.Problems) > MaxProblems:
		why = fmt.Sprintf("%d problems: want at most %d", len(r.Problems), MaxProblems)
	case r.Passed && !r.Kept():
		why = "it says that it passed, and its counts say that it didn't"
	default:
		return nil
	}
	return fmt.Errorf("%w: %s", ErrBadRecord, why)
}

func negative(r *Record) bool {
	for _, s := range []*Switch{&r.Cutover, &r.Rollback} {
		if s.Seconds < 0 || s.Closed < 0 || min(s.Held, s.Replayed, s.PutOff) < 0 {
			return true
		}
	}
	m, l := &r.Mail, &r.Logins
	return min(m.Sent, m.Right, m.Wrong, m.Lost, m.Duplicates, m.Refused, l.Right, l.Wrong, l.Refused, l.PutOff, l.Moved) < 0
}

// ParseRecord reads the text of a document. Its errors wrap [ErrBadRecord].
func ParseRecord(text string) (r Record, err error) {
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrBadRecord, err)
	}
	if err := r.Check(); err != nil {
		return Record{}, err
	}
	return r, nil
}

// Text returns r as [ParseRecord] reads it.
func (r *Record) Text() (string, error) {
	if err := r.Check(); err != nil {
		return "", err
	}
	text, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("write the record of rehearsal %s: %w", r.ID, err)
	}
	return string(text), nil
}
