package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/audit"
	"mailcutover/routing"
	"mailcutover/spool"
	"mailcutover/spool/queue"
)

// SpoolAct is what an operator does with mail in the spool: with all that every field that
// is set fits. It must name an agency, a mailbox or a message, or say all.
type SpoolAct struct {
	Agency   string `json:"agency,omitempty" maxLength:"63"`
	Mailbox  string `json:"mailbox,omitempty" maxLength:"1000" doc:"Directory id or address"`
	Message  string `json:"message,omitempty" maxLength:"100" doc:"Transaction"`
	State    string `json:"state,omitempty" enum:"held,waiting,failed,expired,quarantined"`
	All      bool   `json:"all,omitempty" doc:"Needed if no agency, mailbox or message is named, refused otherwise"`
	Reason   string `json:"reason" minLength:"1" maxLength:"300"`
	DryRun   bool   `json:"dry_run,omitempty" doc:"Only count"`
	Expected *int   `json:"expected_recipients,omitempty" minimum:"0" doc:"412 if another number of recipients is named"`
	Digest   string `json:"expected_digest,omitempty" maxLength:"64" doc:"Of an earlier answer: 412 if other messages or recipients are named"`
}

// SpoolActed is what it did.
type SpoolActed struct {
	Act     string `json:"act" enum:"hold,release,retry,drop"`
	Named   int    `json:"named" doc:"Recipients that were named and in a state that the act is for"`
	Changed int    `json:"changed" doc:"Recipients; of a retry, waiting ones and mailboxes that paused"`
	Busy    int    `json:"busy" doc:"Recipients that were left, because a delivery is under way for them or their mailbox"`
	DryRun  bool   `json:"dry_run,omitempty"`
	Digest  string `json:"digest,omitempty" doc:"Of which messages and recipients were named; present if they were counted beforehand"`
}

// SpoolRate is how many messages a second go to a platform.
type SpoolRate struct {
	Platform string   `json:"platform" minLength:"1" maxLength:"63"`
	Rate     float64  `json:"per_second" minimum:"0" maximum:"1000000" doc:"At most; 0: no limit"`
	Before   *float64 `json:"before,omitempty" readOnly:"true" doc:"What it was; absent if nothing was sent there since the start"`
}

// Adoption is the taking over of another node's spool.
type Adoption struct {
	Directory string     `json:"directory" doc:"On this node's machine"`
	ID        string     `json:"id" doc:"Identity of that spool"`
	From      string     `json:"from" doc:"Node whose spool it was"`
	Began     time.Time  `json:"began"`
	Ended     *time.Time `json:"ended,omitempty"`
	Messages  int        `json:"messages" doc:"In it at the beginning"`
	Moved     int        `json:"moved" doc:"Now in this node's spool"`
	Left      int        `json:"left" doc:"That stay there, because they are damaged"`
	Waiting   string     `json:"waiting,omitempty" doc:"Why it doesn't go on now"`
	Error     string     `json:"error,omitempty" doc:"Why it ended early; the same call goes on with it"`
}

// Adopt names a spool to take over.
type Adopt struct {
	Directory string `json:"directory" minLength:"1" maxLength:"4000" doc:"Of the other node's spool, on this node's machine; absolute"`
	From      string `json:"from" minLength:"1" maxLength:"255" doc:"Node whose spool it is now; 412 if it is another's"`
	Reason    string `json:"reason" minLength:"1" maxLength:"1000"`
}

// act is one of what operators do with mail in the spool.
type act struct {
	name, summary, description string
	do                         func(queue.Subject, string) (queue.Acted, error)
	states                     []spool.State // that it changes; nil: all
}

// spoolAct is a call of one.
type spoolAct struct {
	Mutation
	Body SpoolAct
}

func (in *spoolAct) scope() []routing.AgencyID {
	if in.Body.Agency == "" {
		return nil
	}
	return []routing.AgencyID{routing.AgencyID(in.Body.Agency)}
}

// subject names the mail that an act is for.
func (in *SpoolAct) subject() string {
	var words []string
	for _, w := range [][2]string{{"agency", in.Agency}, {"mailbox", in.Mailbox}, {"message", in.Message}, {"state", in.State}} {
		if w[1] != "" {
			words = append(words, w[0]+" "+w[1])
		}
	}
	if in.All {
		words = append(words, "all mail")
	}
	return "spool: " + strings.Join(words, ", ")
}

func (s *Server) registerSpoolActs(api huma.API) {
	tags := []string{"spool"}
	for _, a := range []act{
		{"hold", "Set mail aside in quarantine", "Held and waiting mail stays there until it is released or dropped.", s.Queue.Hold, []spool.State{spool.StateHeld, spool.StateWaiting}},
		{"release", "Take mail out of quarantine", "It is held mail from then on, in its old place.", s.Queue.Release, []spool.State{spool.StateQuarantined}},
		{"retry", "Try waiting mail now, and mailboxes that pause", "What is in doubt rests until its platform's limit has passed, whoever asks.", s.Queue.Retry, []spool.State{spool.StateHeld, spool.StateWaiting}},
		{"drop", "Remove mail for good", "Nobody is told, and nothing brings it back.", s.Queue.Drop, nil},
	} {
		handle(s, api, huma.Operation{
			OperationID: a.name + "-spooled", Method: http.MethodPost, Path: spoolPath + "/" + a.name, Summary: a.summary, Description: a.description, Tags: tags,
		}, func(ctx context.Context, in *spoolAct) (*reply[SpoolActed], error) {
			if a.name == "drop" && s.Approval != "none" && !in.Body.DryRun {
				return nil, problem(http.StatusForbidden, "propose it: mailcutover spool drop does", "to drop mail needs the approval of others")
			}
			return s.spoolActs(ctx, &a, in.Body)
		})
	}
	handle(s, api, huma.Operation{
		OperationID: "set-spool-rate", Method: http.MethodPost, Path: spoolPath + "/rate", Tags: tags,
		Summary: "How many messages a second go from the spool to a platform at most", Description: "Until the node ends; then that of the configuration is in force again.",
	}, func(ctx context.Context, in *struct {
		Mutation
		Body struct {
			Platform string  `json:"platform" minLength:"1" maxLength:"63"`
			Rate     float64 `json:"per_second" minimum:"0" maximum:"1000000" doc:"0: no limit"`
			Reason   string  `json:"reason" minLength:"1" maxLength:"1000"`
		}
	}) (*reply[SpoolRate], error) {
		return s.setRate(ctx, in.Body.Platform, in.Body.Rate, in.Body.Reason)
	})
	handle(s, api, huma.Operation{
		OperationID: "resume-spool", Method: http.MethodPost, Path: spoolPath + "/resume", Tags: tags,
		Summary: "Put the spool back into service after a failed write or fsync", Description: "For who has seen to the disk. A new file of the journal is begun and made durable first.",
	}, func(ctx context.Context, in *struct {
		Mutation
		Body struct {
			Reason string `json:"reason" minLength:"1" maxLength:"1000"`
		}
	}) (*reply[SpoolStatus], error) {
		return s.resume(ctx, in.Body.Reason)
	})
	handle(s, api, huma.Operation{
		OperationID: "adopt-spool", Method: http.MethodPost, Path: spoolPath + "/adopt", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary:     "Take over the spool of a node that won't come back",
		Description: "From the answer on the other node delivers nothing from it any more. Its mail goes into this node's spool in its order, behind what is there; /v1/spool shows how far that is. The same call goes on with what was interrupted.",
	}, func(ctx context.Context, in *struct {
		Mutation
		Body Adopt
	}) (*reply[Adoption], error) {
		return s.adopt(ctx, in.Body)
	})
}

// spoolActs carries out an operator's act, in the log with the person.
func (s *Server) spoolActs(ctx context.Context, a *act, in SpoolAct) (*reply[SpoolActed], error) {
	reason, err := checkReason(in.Reason)
	if err != nil {
		return nil, err
	}
	if (in.Agency+in.Mailbox+in.Message != "") == in.All {
		return nil, problem(http.StatusBadRequest, "name an agency, a mailbox or a message, or say all, one of them", "what to %s isn't named", a.name)
	}
	f, err := s.filter(subject{agency: in.Agency, mailbox: in.Mailbox, transaction: in.Message, state: in.State})
	if err != nil {
		return nil, err
	}
	if f.Transaction != "" {
		if _, err := s.spooled(in.Message); err != nil {
			return nil, err
		}
	}
	out := &reply[SpoolActed]{Body: SpoolActed{Act: a.name, DryRun: in.DryRun}}
	what := queue.Subject{Transaction: f.Transaction, Agency: f.Agency, Key: f.Key, State: f.State, All: in.All}
	if in.DryRun || in.Expected != nil || in.Digest != "" {
		n := newNamed()
		s.Spool.Each(f, func(e spool.Entry) bool {
			if a.changes(e.State) {
				n.add(&e)
			}
			return true
		})
		what.Only = n.has // mail that comes meanwhile isn't what was looked at
		out.Body.Named, out.Body.Digest = len(n.all), n.digest()
		if in.Digest != "" && in.Digest != out.Body.Digest {
			return nil, problem(http.StatusPreconditionFailed, "look at it again: mailcutover spool list", "%s names other messages or recipients than were expected, %d recipients now", a.name, out.Body.Named)
		}
		if in.Expected != nil && *in.Expected != out.Body.Named {
			return nil, problem(http.StatusPreconditionFailed, "look at it again: mailcutover spool list", "%s names %d recipients now, expected were %d", a.name, out.Body.Named, *in.Expected)
		}
		if in.DryRun {
			return out, nil
		}
	}
	who := callerOf(ctx).person
	if err := s.record(ctx, audit.Entry{Subject: in.subject(), Reason: reason}); err != nil {
		return nil, err
	}
	done, err := a.do(what, fmt.Sprintf("%s (%s)", reason, who))
	s.Logger.InfoContext(ctx, "spool changed by a person", "request", requestOf(ctx).id, "act", a.name, "person", who, "reason", reason,
		"transaction", f.Transaction, "agency", f.Agency, "mailbox", f.Key.String(), "state", in.State, "all", in.All, "changed", done.Changed, "busy", done.Busy, "error", err)
	if err != nil {
		return nil, problem(http.StatusServiceUnavailable, "see mailcutover spool status and the disk of the node; what was changed holds, and is written once the disk takes it",
			"%s changed %d recipients, and then: %s", a.name, done.Changed, err)
	}
	out.Body.Changed, out.Body.Busy = done.Changed, done.Busy
	out.Body.Named = max(out.Body.Named, done.Changed+done.Busy)
	return out, nil
}

// named are recipients of messages in the spool that an act names.
type named struct {
	all map[spooledRecipient]struct{}
	sum hash.Hash // of all, in order of acceptance
}

// spooledRecipient is one of a message: no two messages have the same sequence.
type spooledRecipient struct {
	sequence  uint64
	recipient int
}

func newNamed() *named {
	return &named{all: make(map[spooledRecipient]struct{}), sum: sha256.New()}
}

func (n *named) add(e *spool.Entry) {
	n.all[spooledRecipient{e.Sequence, e.Recipient}] = struct{}{}
	fmt.Fprintf(n.sum, "%s %d\n", e.Transaction, e.Recipient)
}

func (n *named) has(e *spool.Entry) bool {
	_, ok := n.all[spooledRecipient{e.Sequence, e.Recipient}]
	return ok
}

func (n *named) digest() string { return hex.EncodeToString(n.sum.Sum(nil)) }

func (a *act) changes(s spool.State) bool {
	if a.states == nil {
		return true
	}
	for _, x := range a.states {
		if x == s {
			return true
		}
	}
	return false
}

func (s *Server) setRate(ctx context.Context, platform string, rate float64, why string) (*reply[SpoolRate], error) {
	reason, err := checkReason(why)
	if err != nil {
		return nil, err
	}
	if err := s.knownPlatform(platform); err != nil {
		return nil, err
	}
	if err := s.record(ctx, audit.Entry{Subject: "spool rate to platform " + platform, Reason: reason, After: fmt.Sprintf("%g a second", rate)}); err != nil {
		return nil, err
	}
	out := &reply[SpoolRate]{Body: SpoolRate{Platform: platform, Rate: rate}}
	for _, l := range s.Queue.Lanes() {
		if string(l.Platform) == platform {
			out.Body.Before = &l.Rate
		}
	}
	s.Queue.SetRate(routing.PlatformID(platform), rate)
	s.Logger.InfoContext(ctx, "spool rate changed by a person", "request", requestOf(ctx).id, "person", callerOf(ctx).person, "reason", reason, "platform", platform, "rate", rate)
	return out, nil
}

func (s *Server) resume(ctx context.Context, why string) (*reply[SpoolStatus], error) {
	reason, err := checkReason(why)
	if err != nil {
		return nil, err
	}
	if err := s.record(ctx, audit.Entry{Subject: "spool of node " + s.Node, Reason: reason}); err != nil {
		return nil, err
	}
	err = s.Spool.Resume()
	s.Logger.InfoContext(ctx, "spool resumed by a person", "request", requestOf(ctx).id, "person", callerOf(ctx).person, "reason", reason, "error", err)
	if err != nil {
		hint := "see to the disk of the node, and resume again"
		if errors.Is(err, spool.ErrAdopted) {
			hint = "it belongs to another node for good; this one needs a data directory of its own"
		}
		return nil, problem(http.StatusConflict, hint, "the spool stays out of service: %s", err)
	}
	return &reply[SpoolStatus]{Body: s.spoolStatus()}, nil
}

func (s *Server) adopt(ctx context.Context, in Adopt) (*reply[Adoption], error) {
	reason, err := checkReason(in.Reason)
	if err != nil {
		return nil, err
	}
	if !filepath.IsAbs(in.Directory) {
		return nil, problem(http.StatusBadRequest, "name it from the root of the node's machine on", "directory %q is not absolute", in.Directory)
	}
	if err := s.record(ctx, audit.Entry{Subject: "spool in " + in.Directory, Reason: reason, Before: "of node " + in.From, After: "of node " + s.Node}); err != nil {
		return nil, err
	}
	done, err := s.AdoptSpool(ctx, filepath.Clean(in.Directory), in.From)
	s.Logger.InfoContext(ctx, "spool adopted by a person", "request", requestOf(ctx).id, "person", callerOf(ctx).person, "reason", reason, "directory", in.Directory, "from", in.From, "error", err)
	switch {
	case errors.Is(err, spool.ErrAdopted):
		return nil, problem(http.StatusPreconditionFailed, "name the node whose it is now, if that one won't come back", "%s", err)
	case errors.Is(err, spool.ErrInUse):
		return nil, problem(http.StatusConflict, "stop that process first", "%s", err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil, problem(http.StatusBadRequest, "name the directory of a node's spool, such as /var/lib/mailcutover/spool, on the node's machine", "%s", err)
	case err != nil:
		return nil, problem(http.StatusConflict, "the directory must be a node's spool, such as /var/lib/mailcutover/spool, readable and writable for this node", "%s", err)
	}
	return &reply[Adoption]{Body: done}, nil
}

// SpoolAct does hold, release, retry or drop with mail in the spool.
func (c *Client) SpoolAct(ctx context.Context, act string, what SpoolAct) (SpoolActed, error) {
	return post[SpoolActed](ctx, c, spoolPath+"/"+act, what)
}

// SetSpoolRate sets how many messages a second go to a platform; 0: no limit.
func (c *Client) SetSpoolRate(ctx context.Context, platform string, rate float64, reason string) (SpoolRate, error) {
	return post[SpoolRate](ctx, c, spoolPath+"/rate", map[string]any{"platform": platform, "per_second": rate, "reason": reason})
}

// ResumeSpool puts the spool back into service.
func (c *Client) ResumeSpool(ctx context.Context, reason string) (SpoolStatus, error) {
	return post[SpoolStatus](ctx, c, spoolPath+"/resume", reasoned{Reason: reason})
}

// AdoptSpool lets the node take over the spool of another.
func (c *Client) AdoptSpool(ctx context.Context, a Adopt) (Adoption, error) {
	return post[Adoption](ctx, c, spoolPath+"/adopt", a)
}
