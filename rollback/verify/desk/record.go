package desk

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"mailcutover/rollback/verify"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Mode is how much is compared.
type Mode string

const (
	Sample Mode = "sample" // some mailboxes of each agency
	Full   Mode = "full"   // all
	Again  Mode = "again"  // those with findings that were removed
)

// Cause is why a comparison runs.
type Cause string

const (
	ByPerson   Cause = "person"   // somebody asked for it
	AfterMove  Cause = "cutover"  // an agency was cut over
	BySchedule Cause = "schedule" // the last one is old
	Widened    Cause = "widened"  // a sample found crossed mailboxes
	Looking    Cause = "looking"  // somebody says that findings are removed
)

// Running is a comparison under way.
type Running struct {
	Run      string             `json:"run"`
	Node     routing.NodeID     `json:"node"`
	Mode     Mode               `json:"mode"`
	Sample   int                `json:"sample,omitempty"`
	Cause    Cause              `json:"cause"`
	Who      string             `json:"who"`
	Reason   string             `json:"reason"`
	Began    time.Time          `json:"began"`
	Beat     time.Time          `json:"beat"` // when the node last said that it lives
	Progress verify.Progress    `json:"progress"`
	Together []routing.AgencyID `json:"together,omitempty"` // agencies of one run, if more than one
}

// Outcome is a comparison that came to its end.
type Outcome struct {
	Run       string              `json:"run"`
	Node      routing.NodeID      `json:"node"` // which keeps the numbers of each mailbox
	Mode      Mode                `json:"mode"`
	Cause     Cause               `json:"cause"`
	Who       string              `json:"who"`
	Operation routing.OperationID `json:"operation,omitempty"` // the cutover that it followed
	Phase     routing.Phase       `json:"phase"`
	Began     time.Time           `json:"began"`
	Ended     time.Time           `json:"ended"`

	Mailboxes int            `json:"mailboxes"` // of the agency
	Compared  int            `json:"compared"`
	Failed    int            `json:"failed"` // that couldn't be read
	Differ    int            `json:"differ"`
	Counts    verify.Counts  `json:"counts"`
	Found     map[string]int `json:"found,omitempty"` // findings by kind
	Notes     []string       `json:"notes,omitempty"`
}

// Trouble is a comparison that didn't come to its end.
type Trouble struct {
	Run   string         `json:"run"`
	Node  routing.NodeID `json:"node"`
	Mode  Mode           `json:"mode"`
	Time  time.Time      `json:"time"`
	Error string         `json:"error"`
	Tries int            `json:"tries"` // in a row
}

// Record is what the table has about an agency's comparisons.
type Record struct {
	Agency  routing.AgencyID `json:"agency"`
	Running *Running         `json:"running,omitempty"`
	Last    *Outcome         `json:"last,omitempty"` // the last sample or full one
	Full    *Outcome         `json:"full,omitempty"` // the last full one
	Trouble *Trouble         `json:"trouble,omitempty"`

	// Widen says that a sample found crossed mailboxes, and that all have to be compared.
	Widen bool `json:"widen,omitempty"`
	// Lock says that the agency has to be locked for what was found, and isn't yet.
	Lock bool `json:"lock,omitempty"`
	// Pages is how many documents hold the findings, and Left how many findings were too many
	// to be kept.
	Pages int `json:"pages,omitempty"`
	Left  int `json:"left,omitempty"`

	Revision routing.Revision `json:"-"` // of the document
}

// State is how far a finding is worked through.
type State string

const (
	Found     State = "found"     // and nobody has said anything about it
	Removed   State = "removed"   // somebody says that it is put right; the program looks again
	Confirmed State = "confirmed" // the program looked, and it is gone
	Dismissed State = "dismissed" // somebody says that it is as it should be
)

// Open reports whether somebody has still to see to it.
func (s State) Open() bool { return s == Found || s == Removed }

// Tracked is a finding with its state.
type Tracked struct {
	verify.Finding
	State State     `json:"state"`
	First time.Time `json:"first"` // found
	Seen  time.Time `json:"seen"`  // last
	Run   string    `json:"run"`   // in which it was seen last, or was confirmed

	Who    string    `json:"who,omitempty"` // who said the last word: a person, or nobody
	Reason string    `json:"reason,omitempty"`
	Time   time.Time `json:"time,omitzero"`   // of the last word, or of the confirmation
	Again  int       `json:"again,omitempty"` // how often it was found again after it was said to be removed
}

const (
	recordPrefix  = "verify/"
	findingPrefix = "verify-findings/"

	perPage  = 40 // findings in a document, if so many fit
	maxPages = 150
)

func recordKey(id routing.AgencyID) string { return recordPrefix + string(id) }

func pageKey(id routing.AgencyID, n int) string {
	return fmt.Sprintf("%s%s/%03d", findingPrefix, id, n)
}

// RecordOf returns what a State has about an agency; an empty one if it has nothing.
func RecordOf(s *routing.State, id routing.AgencyID) (r Record, err error) {
	d, ok := s.Document(recordKey(id))
	if ok {
		if err = json.Unmarshal([]byte(d.Text), &r); err != nil {
			err = fmt.Errorf("comparisons of agency %s can't be read by this program: %w", id, err)
		}
	}
	r.Agency, r.Revision = id, d.Revision
	return r, err
}

// document returns the record for the table.
func (r *Record) document() (routing.Document, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return routing.Document{}, fmt.Errorf("write the record of comparisons of agency %s: %w", r.Agency, err)
	}
	return routing.Document{Key: recordKey(r.Agency), Text: string(text), Revision: r.Revision}, nil
}

// Findings returns those of an agency, as they stand in the table: the worst first.
func Findings(s *routing.State, id routing.AgencyID) ([]Tracked, error) {
	var all []Tracked
	for _, d := range s.Documents(findingPrefix + string(id) + "/") {
		var page []Tracked
		if err := json.Unmarshal([]byte(d.Text), &page); err != nil {
			return nil, fmt.Errorf("findings of agency %s can't be read by this program: %w", id, err)
		}
		all = append(all, page...)
	}
	return all, nil
}

// pages returns the documents that hold findings now, in the place of those that a State
// has; only those that differ. left is how many were too many.
func pages(s *routing.State, id routing.AgencyID, all []Tracked) (docs []routing.Document, n, left int, err error) {
	for ; len(all) > 0 && n < maxPages; n++ {
		text, some, err := page(all)
		if err != nil {
			return nil, 0, 0, fmt.Errorf("write findings of agency %s: %w", id, err)
		}
		all = all[some:]
		was, ok := s.Document(pageKey(id, n))
		if !ok || was.Text != text {
			docs = append(docs, routing.Document{Key: pageKey(id, n), Text: text, Revision: was.Revision})
		}
	}
	for _, d := range s.Documents(findingPrefix + string(id) + "/") {
		if d.Key >= pageKey(id, n) && d.Text != "[]" {
			docs = append(docs, routing.Document{Key: d.Key, Text: "[]", Revision: d.Revision})
		}
	}
	return docs, n, len(all), nil
}

// page writes the first of these findings, as many as a document takes, and returns how many.
func page(all []Tracked) (text string, n int, err error) {
	var b strings.Builder
	for n < min(perPage, len(all)) {
		one, err := json.Marshal(&all[n])
		if err != nil {
			return "", 0, err
		}
		if n > 0 && b.Len()+len(one)+2 > table.MaxDetailBytes { // people's reasons may be long
			break
		}
		b.WriteByte("[,"[min(n, 1)])
		b.Write(one)
		n++
	}
	return b.String() + "]", n, nil
}
