package admin

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/identity/desk"
	"mailcutover/identity/watch"
	"mailcutover/routing"
)

// Directories is what this node has read of the directories.
type Directories struct {
	Readings []DirectoryReading `json:"readings" doc:"The source's first; none before the first reading came to its end"`
	Failed   string             `json:"failed,omitempty" doc:"Why the last attempt to read them failed"`
	FailedAt *time.Time         `json:"failed_at,omitempty"`
	Stale    string             `json:"stale,omitempty" doc:"Why lists can't be checked and agencies not be cut over now"`
	Problems []DirectoryProblem `json:"problems" doc:"Objects of agencies that can't be used"`

	Reading *DirectoryProgress `json:"reading,omitempty" doc:"How far a reading is that goes on now; absent: none does"`
}

// DirectoryProgress is how far a reading is.
type DirectoryProgress struct {
	Directory string `json:"directory"`
	Objects   int    `json:"objects" doc:"So far"`
	Before    int    `json:"before,omitempty" doc:"That the reading before had; absent: there was none"`
}

// DirectoryReading is one whole reading of a directory.
type DirectoryReading struct {
	Directory  string    `json:"directory"`
	Server     string    `json:"server"`
	Began      time.Time `json:"began"`
	AgeSeconds float64   `json:"age_seconds"`
	Seconds    float64   `json:"seconds" doc:"That it took"`
	Objects    int       `json:"objects"`
	Digest     string    `json:"digest"`
}

// DirectoryProblem is an object that a directory has wrong.
type DirectoryProblem struct {
	DN     string `json:"dn"`
	Agency string `json:"agency,omitempty"`
	Text   string `json:"text"`
}

// DirectoryObjects are objects that the directories have now.
type DirectoryObjects struct {
	Objects []DirectoryObject `json:"objects"`
	Failed  string            `json:"failed,omitempty" doc:"Which directory couldn't be asked: what it has isn't known"`
}

// DirectoryObject is an object of a directory.
type DirectoryObject struct {
	Directory string   `json:"directory"`
	DN        string   `json:"dn"`
	Kind      string   `json:"kind"`
	Agency    string   `json:"agency,omitempty"`
	ID        string   `json:"directory_id,omitempty"`
	Addresses []string `json:"addresses"`
	UPN       string   `json:"upn,omitempty"`
	Account   string   `json:"account,omitempty"`
	Forward   string   `json:"forward,omitempty"`
	X500      []string `json:"x500,omitempty"`
	Enabled   bool     `json:"enabled"`
	Problems  []string `json:"problems,omitempty"`
}

// Crossings are relations between mailboxes of agencies on different platforms.
type Crossings struct {
	Crossings []Crossing `json:"crossings"`
}

// Crossing is a member, a delegate or a forward across the border.
type Crossing struct {
	What       string `json:"what" doc:"member or forward"`
	From       string `json:"from"`
	FromAgency string `json:"from_agency"`
	To         string `json:"to"`
	ToAgency   string `json:"to_agency"`
}

// Members are who may use functional mailboxes, and what changed in that.
type Members struct {
	Mailboxes []Membership   `json:"mailboxes" doc:"Empty with since"`
	Changes   []MemberChange `json:"changes" doc:"The oldest first; empty without since"`
}

// Membership is who is a member, or a delegate, of a functional mailbox.
type Membership struct {
	Agency  string   `json:"agency"`
	ID      string   `json:"directory_id"`
	Address string   `json:"address,omitempty" doc:"Absent: it isn't routed"`
	Members []string `json:"members" doc:"As the directory names them"`
}

// MemberChange is a member that came or went.
type MemberChange struct {
	Time    time.Time `json:"time" doc:"When the directory was read"`
	Agency  string    `json:"agency"`
	ID      string    `json:"directory_id"`
	Address string    `json:"address"`
	Change  string    `json:"change" enum:"came,went"`
	Member  string    `json:"member"`
}

// Drifts is how the directory differs from an agency's mapping and its lists in force.
type Drifts struct {
	Agency string  `json:"agency"`
	Blocks bool    `json:"blocks" doc:"The agency can't be cut over until a new list is approved"`
	Drift  []Drift `json:"drift"`
}

// Drift is one difference.
type Drift struct {
	Kind    string `json:"kind"`
	Blocks  bool   `json:"blocks"`
	Mailbox string `json:"mailbox"`
	Address string `json:"address,omitempty"`
	Text    string `json:"text"`
}

// Forwards says how the platforms forward an agency's mail, asked just now.
type Forwards struct {
	Agency string        `json:"agency"`
	Wrong  int           `json:"wrong" doc:"Mailboxes whose forward is not as it should be, on all platforms that could be asked"`
	Sides  []ForwardSide `json:"sides"`
}

// ForwardSide is how one platform does, by its directory.
type ForwardSide struct {
	Platform  string     `json:"platform"`
	Wanted    string     `json:"wanted" enum:"on,off" doc:"on: each mailbox is forwarded to its coexistence address and nowhere else, as the agency is on the other platform; off: none is forwarded to itself by another name"`
	Directory string     `json:"directory,omitempty"`
	Asked     *time.Time `json:"asked,omitempty"`
	Unread    string     `json:"unread,omitempty" doc:"Why nobody knows"`
	Mailboxes int        `json:"mailboxes"`
	Wrong     int        `json:"wrong"`
	Forwards  []Forward  `json:"forwards" doc:"Those that are wrong, the first thousand"`
}

// Forward is a mailbox whose forward is not as it should be.
type Forward struct {
	Mailbox string   `json:"mailbox"`
	Address string   `json:"address"`
	Fault   string   `json:"fault" enum:"missing,elsewhere,copies,left,nowhere,unknown"`
	Want    []string `json:"want" doc:"One of them is where it should go"`
	To      []string `json:"to" doc:"Where it goes"`
	Text    string   `json:"text"`
}

const directoryPath = "/v1/directory"

func (s *Server) registerDirectory(api huma.API) {
	tags := []string{"directory"}
	handle(s, api, huma.Operation{
		OperationID: "show-directory", Method: http.MethodGet, Path: directoryPath, Summary: "What this node has read of the directories, and what is wrong in them", Tags: tags,
	}, func(ctx context.Context, _ *struct{}) (*reply[Directories], error) {
		d, err := s.desk(ctx, false)
		if err != nil {
			return nil, err
		}
		return &reply[Directories]{Body: directoriesView(d)}, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "check-directory", Method: http.MethodPost, Path: directoryPath + "/check", Summary: "Read the directories now", Tags: tags,
	}, func(ctx context.Context, _ *struct{}) (*reply[Directories], error) {
		ctx, cancel := context.WithTimeout(ctx, listTimeout)
		defer cancel()
		d, err := s.desk(ctx, true)
		if err != nil {
			return nil, err
		}
		return &reply[Directories]{Body: directoriesView(d)}, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "find-in-directory", Method: http.MethodGet, Path: directoryPath + "/objects", Tags: tags,
		Summary: "Ask the directories for an address, a directory id, a login, a DN or an X.500 name",
	}, func(ctx context.Context, in *struct {
		Name string `query:"name" required:"true" minLength:"1" maxLength:"1000"`
	}) (*reply[DirectoryObjects], error) {
		ctx, cancel := context.WithTimeout(ctx, changeTimeout)
		defer cancel()
		d, err := s.desk(ctx, false)
		if err != nil {
			return nil, err
		}
		found, err := d.Find(ctx, in.Name)
		out := &reply[DirectoryObjects]{Body: DirectoryObjects{Objects: []DirectoryObject{}}}
		if err != nil {
			out.Body.Failed = err.Error()
		}
		for i := range found {
			out.Body.Objects = append(out.Body.Objects, objectView(&found[i]))
		}
		return out, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "list-crossings", Method: http.MethodGet, Path: directoryPath + "/crossings", Tags: tags,
		Summary: "Members, delegates and forwards between agencies on different platforms, by the last reading",
	}, func(ctx context.Context, _ *struct{}) (*reply[Crossings], error) {
		d, err := s.desk(ctx, false)
		if err != nil {
			return nil, err
		}
		all, err := d.Crossings()
		out := &reply[Crossings]{Body: Crossings{Crossings: []Crossing{}}}
		for _, c := range all {
			out.Body.Crossings = append(out.Body.Crossings, Crossing{c.What, c.From, string(c.FromAgency), c.To, string(c.ToAgency)})
		}
		return out, deskProblem(err)
	})
	handle(s, api, huma.Operation{
		OperationID: "list-members", Method: http.MethodGet, Path: directoryPath + "/members", Tags: tags,
		Summary:     "Who is a member of which functional mailbox, or what changed in that since a moment",
		Description: "As the table has it from the readings of the directory, on any node. Of changes it keeps the newest of each agency; older ones are in the audit log, in the name of directory.",
	}, func(_ context.Context, in *struct {
		Agency string    `query:"agency" maxLength:"63"`
		Since  time.Time `query:"since" doc:"Changes since then, instead of members"`
	}) (*reply[Members], error) {
		return &reply[Members]{Body: membersView(s.Replica.State(), routing.AgencyID(in.Agency), in.Since)}, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "list-forwards", Method: http.MethodGet, Path: directoryPath + "/forwards", Tags: tags,
		Summary:     "Ask the directories how an agency's mailboxes are forwarded on its platforms, and what of it is wrong",
		Description: "Off where the mailboxes are; on at the other platform, if it has a hook for that.",
	}, func(ctx context.Context, in *struct {
		Agency string `query:"agency" required:"true" maxLength:"63"`
	}) (*reply[Forwards], error) {
		ctx, cancel := context.WithTimeout(ctx, listTimeout)
		defer cancel()
		if _, ok := s.Replica.State().Agency(routing.AgencyID(in.Agency)); !ok {
			return nil, noAgency(in.Agency)
		}
		d, err := s.desk(ctx, false)
		if err != nil {
			return nil, err
		}
		v, err := forwardsView(ctx, d, routing.AgencyID(in.Agency))
		return &reply[Forwards]{Body: v}, err
	})
	handle(s, api, huma.Operation{
		OperationID: "list-drift", Method: http.MethodGet, Path: directoryPath + "/drift", Tags: tags,
		Summary: "How the directory differs from an agency's mapping and its lists in force, by the last reading",
	}, func(ctx context.Context, in *struct {
		Agency string `query:"agency" required:"true" maxLength:"63"`
	}) (*reply[Drifts], error) {
		d, err := s.desk(ctx, false)
		if err != nil {
			return nil, err
		}
		all, err := d.Drift(routing.AgencyID(in.Agency))
		return &reply[Drifts]{Body: driftsView(in.Agency, all)}, deskProblem(err)
	})
}

func directoriesView(d *desk.Desk) Directories {
	now, st := time.Now(), d.Status()
	v := Directories{Readings: []DirectoryReading{}, Problems: []DirectoryProblem{}}
	for _, one := range []*watch.View{st.Source, st.Target} {
		if one == nil {
			continue
		}
		r := &one.Snapshot
		v.Readings = append(v.Readings, DirectoryReading{
			Directory: r.Directory, Server: r.Server, Began: r.Began, AgeSeconds: now.Sub(one.Facts.At).Seconds(),
			Seconds: r.Ended.Sub(r.Began).Seconds(), Objects: r.Objects, Digest: r.Digest.String(),
		})
		const most = 1000
		for _, p := range one.Problems[:min(most, len(one.Problems))] {
			v.Problems = append(v.Problems, DirectoryProblem{p.DN, string(p.Agency), p.Text})
		}
	}
	if p := d.Progress(); p.Directory != "" {
		v.Reading = &DirectoryProgress{Directory: p.Directory, Objects: p.Objects, Before: p.Before}
	}
	if st.Failed != nil {
		v.Failed, v.FailedAt = st.Failed.Error(), &st.FailedAt
	}
	if st.Stale != nil {
		v.Stale = st.Stale.Error()
	}
	return v
}

func objectView(f *desk.Found) DirectoryObject {
	o := &f.Object
	v := DirectoryObject{
		Directory: f.Directory, DN: o.DN, Kind: o.Kind.String(), Agency: string(f.Agency), Addresses: texts(o.Addresses), UPN: o.UPN, Account: o.Account,
		Forward: o.Forward, X500: o.X500, Enabled: o.Enabled, Problems: o.Problems,
	}
	if !o.ID.IsZero() {
		v.ID = o.ID.String()
	}
	return v
}

// forwardsView asks the directories of both platforms.
func forwardsView(ctx context.Context, d *desk.Desk, agency routing.AgencyID) (Forwards, error) {
	v := Forwards{Agency: string(agency), Sides: []ForwardSide{}}
	sides, err := d.ForwardSides(agency)
	for _, q := range sides {
		side := ForwardSide{Platform: string(q.Platform), Wanted: "off", Forwards: []Forward{}}
		if q.On {
			side.Wanted = "on"
		}
		found, err := d.Forwards(ctx, q)
		if err != nil {
			side.Unread = err.Error()
			v.Sides = append(v.Sides, side)
			continue
		}
		side.Directory, side.Asked, side.Mailboxes, side.Wrong = found.Directory, &found.Asked, found.Mailboxes, len(found.Wrong)
		v.Wrong += side.Wrong
		const most = 1000
		for i := range found.Wrong[:min(most, len(found.Wrong))] {
			f := &found.Wrong[i]
			one := Forward{Mailbox: f.Mailbox.String(), Address: string(f.Address), Fault: string(f.Fault), Want: texts(f.Want), To: f.To, Text: desk.SayForward(f)}
			if one.To == nil {
				one.To = []string{}
			}
			side.Forwards = append(side.Forwards, one)
		}
		v.Sides = append(v.Sides, side)
	}
	return v, err
}

func driftsView(agency string, all []watch.Drift) Drifts {
	v := Drifts{Agency: agency, Drift: []Drift{}}
	for _, one := range all {
		v.Blocks = v.Blocks || one.Kind.Blocks()
		v.Drift = append(v.Drift, Drift{Kind: string(one.Kind), Blocks: one.Kind.Blocks(), Mailbox: one.Mailbox.String(), Address: string(one.Address), Text: desk.Say(one)})
	}
	return v
}

func membersView(state *routing.State, agency routing.AgencyID, since time.Time) Members {
	v := Members{Mailboxes: []Membership{}, Changes: []MemberChange{}}
	if !since.IsZero() {
		for _, c := range desk.MemberChanges(state, agency, since) {
			one := MemberChange{Time: c.At, Agency: string(c.Agency), ID: c.Mailbox.String(), Address: c.Address, Change: "went", Member: c.Member}
			if c.Came {
				one.Change = "came"
			}
			v.Changes = append(v.Changes, one)
		}
		return v
	}
	for _, m := range desk.Members(state, agency) {
		one := Membership{Agency: string(m.Agency), ID: m.Mailbox.String(), Address: string(m.Address), Members: m.Members}
		if one.Members == nil {
			one.Members = []string{}
		}
		v.Mailboxes = append(v.Mailboxes, one)
	}
	return v
}

// Members returns who is a member of which functional mailbox, of an agency or, if it is empty, of
// all; with since, what changed since then.
func (c *Client) Members(ctx context.Context, agency string, since time.Time) (Members, error) {
	q := url.Values{}
	if agency != "" {
		q.Set("agency", agency)
	}
	if !since.IsZero() {
		q.Set("since", since.UTC().Format(time.RFC3339))
	}
	return get[Members](ctx, c, directoryPath+"/members", q)
}

// Directories says what the node has read of the directories; refresh: it reads them now.
func (c *Client) Directories(ctx context.Context, refresh bool) (Directories, error) {
	if !refresh {
		return get[Directories](ctx, c, directoryPath, nil)
	}
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	return decode[Directories](c.send(ctx, http.MethodPost, directoryPath+"/check", nil, "application/json", strings.NewReader("{}")))
}

// FindInDirectory asks the directories for a name.
func (c *Client) FindInDirectory(ctx context.Context, name string) (DirectoryObjects, error) {
	return get[DirectoryObjects](ctx, c, directoryPath+"/objects", url.Values{"name": {name}})
}

// Crossings returns what crosses the border between agencies on different platforms.
func (c *Client) Crossings(ctx context.Context) ([]Crossing, error) {
	out, err := get[Crossings](ctx, c, directoryPath+"/crossings", nil)
	return out.Crossings, err
}

// Forwards asks how the platforms forward an agency's mail.
func (c *Client) Forwards(ctx context.Context, agency string) (Forwards, error) {
	return get[Forwards](ctx, c, directoryPath+"/forwards", url.Values{"agency": {agency}})
}

// Drift returns how the directory differs from an agency's mapping and its lists.
func (c *Client) Drift(ctx context.Context, agency string) (Drifts, error) {
	return get[Drifts](ctx, c, directoryPath+"/drift", url.Values{"agency": {agency}})
}
