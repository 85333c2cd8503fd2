package admin

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
	"mailcutover/spool/queue"
)

// Spool is what the API needs of the node's spool; *spool.Store is one.
type Spool interface {
	ID() string
	Status() spool.Status
	Each(filter spool.Filter, f func(spool.Entry) bool)
	Get(id mail.TransactionID) (*spool.Message, error)
	Resume() error
}

// Queue is what sends the mail of the spool; *queue.Queue is one.
type Queue interface {
	Hold(s queue.Subject, reason string) (queue.Acted, error)
	Release(s queue.Subject, reason string) (queue.Acted, error)
	Retry(s queue.Subject, reason string) (queue.Acted, error)
	Drop(s queue.Subject, reason string) (queue.Acted, error)
	Progress(id routing.AgencyID) queue.Progress
	Lanes() []queue.Lane
	SetRate(p routing.PlatformID, perSecond float64)
}

// SpoolStatus is how the node's spool is doing.
type SpoolStatus struct {
	ID        string     `json:"id" doc:"Identity of the spool; it never changes"`
	Directory string     `json:"directory" doc:"On the node"`
	Refusing  string     `json:"refusing,omitempty" doc:"Why nothing new is taken; absent while mail is"`
	Adopted   bool       `json:"adopted,omitempty" doc:"It belongs to another node now: nothing is taken, and nothing delivered from it"`
	Total     SpoolCount `json:"total"`
	Oldest    *time.Time `json:"oldest,omitempty" doc:"When its oldest message was accepted"`
	Pending   int        `json:"pending" doc:"Outcomes that the disk did not take yet"`
	Files     int        `json:"journal_files"`
	Disk      int64      `json:"journal_bytes"`

	Agencies    []AgencySpool `json:"agencies" doc:"Those with mail in the spool; the empty one has fixed addresses and notices"`
	Lanes       []Lane        `json:"lanes" doc:"The ways to the platforms"`
	Quarantine  []string      `json:"quarantine_files,omitempty" doc:"What could not be read, set aside for a human"`
	Removed     int           `json:"quarantine_removed" doc:"Files of the quarantine that were removed for their age since the start"`
	Removals    []Removal     `json:"quarantine_removals,omitempty" doc:"The last of them; the log has all"`
	Problems    []string      `json:"problems,omitempty" doc:"What the last start found that isn't as it was written"`
	Adoptions   []Adoption    `json:"adoptions,omitempty" doc:"Spools of other nodes that were taken over since the start"`
	LedgerError string        `json:"ledger_error,omitempty" doc:"Why deliveries can't be recorded: then no mail goes out"`
}

// Removal is a file of the spool's quarantine that was removed.
type Removal struct {
	File   string    `json:"file"`
	Bytes  int64     `json:"bytes"`
	Aside  time.Time `json:"aside" doc:"When it was set aside"`
	Time   time.Time `json:"time" doc:"When it was removed"`
	Reason string    `json:"reason" doc:"age: it was older than spool.quarantine_age"`
}

// SpoolCount is how much there is.
type SpoolCount struct {
	Messages    int   `json:"messages"`
	Bytes       int64 `json:"bytes"`
	Held        int   `json:"held" doc:"Recipients whose agency was closed, or whose mail goes behind such"`
	Waiting     int   `json:"waiting" doc:"Recipients that are tried again"`
	Failed      int   `json:"failed" doc:"Recipients that were refused, and whose sender is yet to be told"`
	Expired     int   `json:"expired" doc:"As failed, but because it took too long"`
	Quarantined int   `json:"quarantined" doc:"Recipients that are set aside, for a human"`
}

// AgencySpool is what the spool has of an agency, and how its replay goes.
type AgencySpool struct {
	Agency string `json:"agency"`
	SpoolCount
	Oldest *time.Time `json:"oldest,omitempty"`
	Rate   float64    `json:"rate" doc:"Recipients a second that were delivered lately"`
	Left   float64    `json:"left_seconds,omitempty" doc:"How long the held mail still takes at that rate; absent if it isn't known"`
}

// Lane is the way to a platform.
type Lane struct {
	Platform string     `json:"platform"`
	Running  int        `json:"running" doc:"Deliveries under way"`
	Limit    int        `json:"limit" doc:"How many there may be now"`
	Most     int        `json:"most" doc:"How many there may be at most"`
	Ready    int        `json:"ready" doc:"Mailboxes with held mail, and waiting mail, that could go now"`
	Rate     float64    `json:"rate_limit" doc:"Messages a second at most; 0: no limit"`
	Down     bool       `json:"down"`
	Until    *time.Time `json:"asked_again,omitempty" doc:"While down"`
	Error    string     `json:"error,omitempty" doc:"While down: why"`
	Backlog  int        `json:"backlog" doc:"Recipients held or waiting whose agency is on this platform now"`
	Sent     float64    `json:"rate" doc:"Recipients a second that were delivered lately for those agencies"`
	Left     float64    `json:"left_seconds,omitempty" doc:"How long their held mail still takes at that rate; absent if it isn't known"`
}

const (
	spoolPath    = "/v1/spool"
	messagesPath = "/v1/spool/messages"
)

func (s *Server) registerSpool(api huma.API) {
	tags := []string{"spool"}
	handle(s, api, huma.Operation{
		OperationID: "spool-status", Method: http.MethodGet, Path: spoolPath, Summary: "How this node's spool and its queue are doing", Tags: tags,
	}, func(context.Context, *struct{}) (*reply[SpoolStatus], error) {
		return &reply[SpoolStatus]{Body: s.spoolStatus()}, nil
	})
	s.registerSpoolMessages(api, tags)
	s.registerSpoolActs(api)
}

func countView(c spool.Counts) SpoolCount {
	return SpoolCount{
		Messages: c.Messages, Bytes: c.Bytes, Held: c.Of(spool.StateHeld), Waiting: c.Of(spool.StateWaiting),
		Failed: c.Of(spool.StateFailed), Expired: c.Of(spool.StateExpired), Quarantined: c.Of(spool.StateQuarantined),
	}
}

// timeView returns a time for a field that is left out where there is none.
func timeView(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (s *Server) spoolStatus() SpoolStatus {
	st := s.Spool.Status()
	v := SpoolStatus{
		ID: s.Spool.ID(), Directory: s.SpoolDirectory, Refusing: errorText(cmp.Or(st.Broken, st.Full)), Adopted: errors.Is(st.Broken, spool.ErrAdopted),
		Total: countView(st.Counts), Pending: st.Pending, Files: st.Files, Disk: st.Disk,
		Agencies: []AgencySpool{}, Lanes: []Lane{}, Adoptions: s.Adoptions(),
		LedgerError: errorText(s.Ledger.Status().Err),
	}
	for _, p := range st.Opened.Problems {
		v.Problems = append(v.Problems, p.String())
	}
	v.Quarantine = quarantineFiles(s.SpoolDirectory)
	v.Removed = st.Removed
	for _, r := range st.Removals {
		v.Removals = append(v.Removals, Removal{File: r.Name, Bytes: r.Bytes, Aside: r.Aside, Time: r.Time, Reason: r.Reason})
	}
	oldest := s.oldest(len(st.Agency))
	for id, c := range st.Agency {
		p := s.Queue.Progress(id)
		v.Agencies = append(v.Agencies, AgencySpool{
			Agency: string(id), SpoolCount: countView(c), Oldest: timeView(oldest[id]), Rate: p.Rate, Left: p.Left.Seconds(),
		})
		if t := oldest[id]; v.Oldest == nil || t.Before(*v.Oldest) {
			v.Oldest = timeView(t)
		}
	}
	slices.SortFunc(v.Agencies, func(a, b AgencySpool) int { return strings.Compare(a.Agency, b.Agency) })
	v.Lanes = append(v.Lanes, s.lanes(v.Agencies)...)
	return v
}

// oldest returns the time of the oldest mail of each agency that has some; n is how many
// there are.
func (s *Server) oldest(n int) map[routing.AgencyID]time.Time {
	times := make(map[routing.AgencyID]time.Time, n)
	s.Spool.Each(spool.Filter{}, func(e spool.Entry) bool {
		if _, ok := times[e.Agency]; !ok {
			times[e.Agency] = e.Time
		}
		return len(times) < n
	})
	return times
}

// quarantineFiles lists what lies in the spool's quarantine/; what can't be listed says so.
func quarantineFiles(dir string) (names []string) {
	if dir == "" {
		return nil
	}
	list, err := os.ReadDir(filepath.Join(dir, "quarantine"))
	if err != nil {
		return []string{err.Error()}
	}
	for _, f := range list {
		names = append(names, f.Name())
	}
	return names
}

// lanes returns the state of the ways to the platforms, with what the agencies that are
// on each still have.
func (s *Server) lanes(agencies []AgencySpool) []Lane {
	state := s.Replica.State()
	var out []Lane
	for _, l := range s.Queue.Lanes() {
		v := Lane{
			Platform: string(l.Platform), Running: l.Running, Limit: l.Limit, Most: l.Most, Ready: l.Ready, Rate: l.Rate,
			Down: l.Down, Until: timeView(l.Until), Error: errorText(l.Err),
		}
		held := 0
		for _, a := range agencies {
			if record, ok := state.Agency(routing.AgencyID(a.Agency)); ok && record.Platform() == l.Platform {
				v.Backlog += a.Held + a.Waiting
				held += a.Held
				v.Sent += a.Rate
			}
		}
		if held > 0 && v.Sent > 0.001 {
			v.Left = float64(held) / v.Sent
		}
		out = append(out, v)
	}
	return out
}

// Spool returns how the node's spool is doing.
func (c *Client) Spool(ctx context.Context) (SpoolStatus, error) {
	return get[SpoolStatus](ctx, c, spoolPath, nil)
}
