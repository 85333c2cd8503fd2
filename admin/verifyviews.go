package admin

import (
	"time"

	"mailcutover/rollback/verify"
	"mailcutover/rollback/verify/desk"
)

// Verifications say how agencies' mailboxes stand.
type Verifications struct {
	Agencies []Verification `json:"agencies" doc:"In order of their ids"`
}

// Verification says how one agency's mailboxes stand.
type Verification struct {
	Agency  string               `json:"agency"`
	Running *VerificationRunning `json:"running,omitempty" doc:"Absent: nothing is being compared"`
	Last    *VerificationOutcome `json:"last,omitempty" doc:"The last comparison that came to its end; absent: there was none"`
	Full    *VerificationOutcome `json:"full,omitempty" doc:"The last one of all mailboxes"`
	Open    VerificationTally    `json:"open" doc:"Findings that nobody has seen to yet"`
	Left    int                  `json:"left,omitempty" doc:"Findings that were too many to be kept"`
	Trouble string               `json:"trouble,omitempty" doc:"Why the last attempt did not come to its end"`
	Tried   *time.Time           `json:"tried,omitempty" doc:"When that was"`
	Refuses []string             `json:"refuses" doc:"Why the way back can't be finalised, as far as mailboxes go"`
}

// VerificationRunning is a comparison under way.
type VerificationRunning struct {
	Run       string    `json:"run"`
	Node      string    `json:"node"`
	Mode      string    `json:"mode" enum:"sample,full,again" doc:"again: mailboxes with findings that were said to be removed"`
	Cause     string    `json:"cause"`
	Person    string    `json:"person"`
	Reason    string    `json:"reason"`
	Began     time.Time `json:"began"`
	Mailboxes int       `json:"mailboxes" doc:"To compare, of all agencies of the run; told twice a minute"`
	Done      int       `json:"done"`
	Messages  int64     `json:"messages" doc:"Looked at, on both sides"`
}

// VerificationOutcome is what came of a comparison.
type VerificationOutcome struct {
	Run       string         `json:"run"`
	Node      string         `json:"node" doc:"Has the numbers of each mailbox"`
	Mode      string         `json:"mode" enum:"sample,full,again"`
	Cause     string         `json:"cause"`
	Person    string         `json:"person"`
	Ended     time.Time      `json:"ended"`
	Seconds   float64        `json:"seconds"`
	Mailboxes int            `json:"mailboxes" doc:"Of the agency"`
	Compared  int            `json:"compared"`
	Failed    int            `json:"failed" doc:"That could not be read"`
	Differ    int            `json:"differ" doc:"Of which something besides new mail differs"`
	Counts    verify.Counts  `json:"counts"`
	Found     map[string]int `json:"found" doc:"Findings by kind"`
	Notes     []string       `json:"notes"`
}

// VerificationTally counts open findings.
type VerificationTally desk.Tally

// Findings are a list of them.
type Findings struct {
	Findings []Finding `json:"findings" doc:"The open ones first, the worst before others"`
}

// Finding is something about a mailbox that people have to look at.
type Finding struct {
	ID           string     `json:"id"`
	Kind         string     `json:"kind" enum:"crossed,possible,foreign,missing,clash" doc:"crossed: content of the owner lies in the mailbox; possible: perhaps; foreign: much of it never was the mailbox's, and the owner isn't known; missing: much isn't there that should be; clash: UIDs that name other messages"`
	State        string     `json:"state" enum:"found,removed,confirmed,dismissed"`
	Agency       string     `json:"agency"`
	Mailbox      string     `json:"mailbox" doc:"Directory id of the mailbox in which it lies"`
	Address      string     `json:"address" doc:"Its address"`
	Owner        string     `json:"owner,omitempty" doc:"Directory id of whose it likely is"`
	OwnerAgency  string     `json:"owner_agency,omitempty"`
	OwnerAddress string     `json:"owner_address,omitempty"`
	Messages     int        `json:"messages" doc:"That lie in the mailbox and stand with the owner"`
	Sure         int        `json:"sure" doc:"Of them, that name the owner and not the mailbox"`
	Late         int        `json:"late,omitempty" doc:"Of them, that came after the watermark: perhaps by its user"`
	Of           int        `json:"of" doc:"Messages that the mailbox holds"`
	Folders      []string   `json:"folders,omitempty" doc:"Where most of them lie. Users name folders: it is told to operators"`
	First        time.Time  `json:"first"`
	Seen         time.Time  `json:"seen"`
	Run          string     `json:"run" doc:"That saw it last, or confirmed that it is gone"`
	Person       string     `json:"person,omitempty" doc:"Who said the last word"`
	Reason       string     `json:"reason,omitempty"`
	Time         *time.Time `json:"time,omitempty" doc:"Of the last word, or of the confirmation"`
	Again        int        `json:"again,omitempty" doc:"How often it was found again after it was said to be removed"`
}

// FindingMessages are the messages that a finding is about.
type FindingMessages struct {
	Messages []verify.Message `json:"messages"`
	More     bool             `json:"more" doc:"There are more than are told"`
}

// MailboxComparisons are the numbers of mailboxes.
type MailboxComparisons struct {
	Run       string              `json:"run"`
	Mailboxes []verify.Comparison `json:"mailboxes"`
	More      bool                `json:"more" doc:"There are more than are told"`
}

// NewVerification asks for a comparison.
type NewVerification struct {
	Agencies []string `json:"agencies,omitempty" maxItems:"1000" doc:"Compared together: content of one is found in another"`
	All      bool     `json:"all,omitempty" doc:"All agencies instead"`
	Full     bool     `json:"full,omitempty" doc:"All mailboxes instead of a sample"`
	Sample   int      `json:"sample,omitempty" minimum:"1" doc:"Mailboxes of each agency; left out: as configured"`
	Reason   string   `json:"reason" minLength:"1" maxLength:"1000"`
}

// VerificationBegun is a comparison that was begun.
type VerificationBegun struct {
	Run      string   `json:"run"`
	Node     string   `json:"node"`
	Agencies []string `json:"agencies"`
}

// FindingMark is what somebody says about findings.
type FindingMark struct {
	Findings []string `json:"findings,omitempty" maxItems:"10000" doc:"Ids"`
	Agency   string   `json:"agency,omitempty" maxLength:"63" doc:"All findings of this agency that are in state found, instead of ids"`
	State    string   `json:"state" enum:"found,removed,dismissed" doc:"removed: it was put right, and is looked at again; dismissed: it is as it should be; found: opens it again"`
	Reason   string   `json:"reason" minLength:"1" maxLength:"1000"`
}

func (s *Server) verificationView(r *desk.Record, found []desk.Tracked) Verification {
	v := Verification{
		Agency: string(r.Agency), Last: outcomeView(r.Last), Full: outcomeView(r.Full), Open: VerificationTally(desk.Count(found)), Left: r.Left, Refuses: []string{},
	}
	if s.Verify != nil {
		v.Refuses = append(v.Refuses, s.Verify.Open(r.Agency)...)
	}
	if t := r.Trouble; t != nil {
		v.Trouble, v.Tried = t.Error, &t.Time
	}
	if at := r.Running; at != nil {
		v.Running = &VerificationRunning{
			Run: at.Run, Node: string(at.Node), Mode: string(at.Mode), Cause: string(at.Cause), Person: at.Who, Reason: at.Reason, Began: at.Began,
			Mailboxes: at.Progress.Mailboxes, Done: at.Progress.Done, Messages: at.Progress.Messages,
		}
		if s.Verify != nil {
			if p, ok := s.Verify.Progress(at.Run); ok {
				v.Running.Mailboxes, v.Running.Done, v.Running.Messages = p.Mailboxes, p.Done, p.Messages
			}
		}
	}
	return v
}

func outcomeView(o *desk.Outcome) *VerificationOutcome {
	if o == nil {
		return nil
	}
	v := &VerificationOutcome{
		Run: o.Run, Node: string(o.Node), Mode: string(o.Mode), Cause: string(o.Cause), Person: o.Who, Ended: o.Ended, Seconds: o.Ended.Sub(o.Began).Seconds(),
		Mailboxes: o.Mailboxes, Compared: o.Compared, Failed: o.Failed, Differ: o.Differ, Counts: o.Counts, Found: o.Found, Notes: append([]string{}, o.Notes...),
	}
	if v.Found == nil {
		v.Found = map[string]int{}
	}
	return v
}

func findingView(t *desk.Tracked, operates bool) Finding {
	v := Finding{
		ID: t.ID, Kind: string(t.Kind), State: string(t.State), Agency: string(t.Agency), Mailbox: t.Mailbox.String(), Address: string(t.Address),
		Messages: t.Messages, Sure: t.Sure, Late: t.Late, Of: t.Of, First: t.First, Seen: t.Seen, Run: t.Run, Person: t.Who, Reason: t.Reason, Again: t.Again,
	}
	if !t.Owner.IsZero() {
		v.Owner, v.OwnerAgency, v.OwnerAddress = t.Owner.String(), string(t.OwnerAgency), string(t.OwnerAddress)
	}
	if operates {
		v.Folders = t.Folders
	}
	if !t.Time.IsZero() {
		v.Time = &t.Time
	}
	return v
}
