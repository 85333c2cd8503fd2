package admin

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"mailcutover/plan"
	"mailcutover/routing"
)

// WaveDefinition is what is approved of a wave. Its fields are those of a wave's file, too.
type WaveDefinition struct {
	Agencies  []string     `json:"agencies" yaml:"agencies" minItems:"1" maxItems:"60" doc:"In the order in which they are cut over"`
	Owner     string       `json:"owner" yaml:"owner" minLength:"1" maxLength:"300" doc:"Who is asked about it: a person or a team"`
	Pilot     bool         `json:"pilot,omitempty" yaml:"pilot" doc:"Every wave that is no pilot waits until this one is done and has rested"`
	After     []string     `json:"after,omitempty" yaml:"after" maxItems:"60" doc:"Waves that have to be done, and to have rested, before"`
	Zone      string       `json:"zone" yaml:"zone" maxLength:"100" doc:"Where the clocks are, as in the IANA's list" example:"Europe/Berlin"`
	Windows   []WaveWindow `json:"windows" yaml:"windows" minItems:"1" maxItems:"20" doc:"When agencies are started, and have to have ended by the forecast"`
	State     string       `json:"state,omitempty" yaml:"state" maxLength:"10" doc:"German state whose public holidays count, such as BE; national: those of all states" example:"BE"`
	Holidays  []string     `json:"holidays,omitempty" yaml:"holidays" maxItems:"200" doc:"Further holidays, YYYY-MM-DD"`
	Never     []string     `json:"never,omitempty" yaml:"never" maxItems:"200" doc:"Dates on which no window begins, YYYY-MM-DD"`
	NotBefore string       `json:"not_before,omitempty" yaml:"not_before" maxLength:"10" doc:"First date on which agencies are started"`
	NotAfter  string       `json:"not_after,omitempty" yaml:"not_after" maxLength:"10" doc:"Last date; absent: 28 days after the start"`
	AtOnce    int          `json:"at_once,omitempty" yaml:"at_once" minimum:"0" maximum:"20" doc:"Agencies under way or baking at one time; 0: 1"`
	Retries   *int         `json:"retries,omitempty" yaml:"retries" minimum:"0" maximum:"5" doc:"How often an agency whose operation was aborted may be tried again, when an operator asks for it; absent: the setting plan.retries"`
	Bake      string       `json:"bake,omitempty" yaml:"bake" maxLength:"20" doc:"After each agency, before another one takes its place" example:"1h"`
	Rest      string       `json:"rest,omitempty" yaml:"rest" maxLength:"20" doc:"After the last one, before waves that come after" example:"24h"`
	Checks    []WaveItem   `json:"checks,omitempty" yaml:"checks" maxItems:"20" doc:"Questions that a person answers, besides backup"`
}

// WaveWindow is a span of time that begins on certain days.
type WaveWindow struct {
	Days []string `json:"days" yaml:"days" minItems:"1" maxItems:"8" doc:"mon to sun, and holiday: on a holiday only windows begin that name it"`
	From string   `json:"from" yaml:"from" maxLength:"5" example:"20:00"`
	To   string   `json:"to" yaml:"to" maxLength:"5" doc:"On the next day, if it isn't later" example:"02:00"`
}

// WaveItem is a question of the checklist.
type WaveItem struct {
	ID    string `json:"id" yaml:"id" maxLength:"63"`
	Text  string `json:"text" yaml:"text" maxLength:"300"`
	Valid string `json:"valid,omitempty" yaml:"valid" maxLength:"20" doc:"For how long an answer counts; absent: until the wave ends" example:"12h"`
}

// Waves are all waves, with the stop if there is one.
type Waves struct {
	Waves      []Wave    `json:"waves" doc:"The oldest first"`
	Stop       *PlanStop `json:"stop,omitempty" doc:"Keeps all waves from starting agencies; absent: nothing does"`
	Unreadable []string  `json:"unreadable,omitempty" doc:"Made by another version of the program"`
}

// Wave is one wave.
type Wave struct {
	Name       string         `json:"name"`
	State      string         `json:"state" enum:"proposed,running,paused,done,ended"`
	Definition WaveDefinition `json:"definition"`
	Proposal   string         `json:"proposal"`
	Approval   string         `json:"approval,omitempty" enum:"open,approved,used,withdrawn,expired,void" doc:"State of the proposal, until the wave is started; void, expired or withdrawn: propose it again, or end it"`
	Person     string         `json:"person" doc:"Who proposed it"`
	Reason     string         `json:"reason"`
	Proposed   time.Time      `json:"proposed"`
	Approvers  []string       `json:"approvers,omitempty" doc:"Once it is started"`
	Started    *WaveWord      `json:"started,omitempty"`
	Said       *WaveWord      `json:"said,omitempty" doc:"Why it is paused, runs again or was ended"`
	Over       *time.Time     `json:"over,omitempty" doc:"It is done or ended"`
	Agencies   []WaveAgency   `json:"agencies" doc:"In their order"`
	Answers    []WaveAnswer   `json:"answers,omitempty"`

	Next      string         `json:"next,omitempty" doc:"Agency that comes next; absent: none waits"`
	Checks    []WaveCheck    `json:"checks,omitempty" doc:"Its checklist; only of one wave that is asked for"`
	Obstacles []WaveObstacle `json:"obstacles,omitempty" doc:"All that keeps it from starting now; only of one wave that is asked for"`
}

// WaveWord is what a person, or the program, said about a wave.
type WaveWord struct {
	Person string    `json:"person"`
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
	Itself bool      `json:"itself,omitempty" doc:"It was the program"`
}

// WaveAgency is an agency of a wave.
type WaveAgency struct {
	Agency    string     `json:"agency"`
	Epoch     string     `json:"epoch" doc:"In which the approval covers it"`
	State     string     `json:"state" enum:"waiting,starting,running,done,aborted,skipped,elsewhere,back" doc:"elsewhere: cut over without the wave; back: rolled back since"`
	Operation string     `json:"operation,omitempty" doc:"The last one"`
	Attempt   int        `json:"attempt,omitempty"`
	Retries   int        `json:"retries,omitempty" doc:"How often people had it tried again after it was aborted"`
	Node      string     `json:"node,omitempty" doc:"That started it"`
	Started   *time.Time `json:"started,omitempty"`
	Ended     *time.Time `json:"ended,omitempty"`
	Closed    float64    `json:"closed_seconds,omitempty" doc:"How long it was closed"`
	Why       string     `json:"why,omitempty" doc:"It was refused, aborted or skipped"`
	NotBefore *time.Time `json:"not_before,omitempty" doc:"Of another attempt"`
	Canary    string     `json:"canary,omitempty" doc:"That failed after the switch"`
}

// WaveAnswer is a person's answer to a question of the checklist.
type WaveAnswer struct {
	Item   string    `json:"item"`
	OK     bool      `json:"ok"`
	Person string    `json:"person"`
	Time   time.Time `json:"time"`
	Note   string    `json:"note,omitempty"`
}

// WaveCheck is one line of the checklist.
type WaveCheck struct {
	Name    string     `json:"name"`
	OK      bool       `json:"ok"`
	Informs bool       `json:"informs,omitempty" doc:"It refuses nothing"`
	Person  string     `json:"person,omitempty" doc:"Who has answered it; absent: the program"`
	Until   *time.Time `json:"until,omitempty" doc:"For how long that counts"`
	Text    string     `json:"text"`
}

// WaveObstacle is a reason for which an agency isn't started now.
type WaveObstacle struct {
	Name  string     `json:"name"`
	Text  string     `json:"text"`
	Until *time.Time `json:"until,omitempty" doc:"It goes by itself then, or may; absent: something has to happen"`
}

// PlanStop keeps waves from starting agencies.
type PlanStop struct {
	Since    time.Time     `json:"since"`
	Person   string        `json:"person,omitempty" doc:"Who stopped the plan; absent: the program"`
	Findings []PlanFinding `json:"findings"`
	Revision uint64        `json:"revision" doc:"Names it as it is, to who lifts it"`
}

// PlanFinding is why.
type PlanFinding struct {
	Cause  string    `json:"cause" enum:"canary,verify,errors,aborts,drift,person"`
	Agency string    `json:"agency,omitempty"`
	Text   string    `json:"text"`
	Time   time.Time `json:"time"`
	Node   string    `json:"node,omitempty" doc:"That has found it"`
}

// Timetable is how all waves are likely to go, if nothing refuses and nobody pauses.
type Timetable struct {
	Made time.Time      `json:"made"`
	Rows []TimetableRow `json:"rows" doc:"By start; those of which nobody can say it at the end"`
	Stop *PlanStop      `json:"stop,omitempty"`
}

// TimetableRow is one agency in it.
type TimetableRow struct {
	Wave      string      `json:"wave"`
	WaveState string      `json:"wave_state" enum:"proposed,running,paused,done,ended"`
	Agency    string      `json:"agency"`
	State     string      `json:"state"`
	Mailboxes int         `json:"mailboxes" doc:"-1: not known"`
	Start     *time.Time  `json:"start,omitempty"`
	End       *time.Time  `json:"end,omitempty" doc:"As is likely"`
	Worst     *time.Time  `json:"worst,omitempty" doc:"At the latest, by the forecast"`
	Zone      string      `json:"zone" doc:"The wave's, in which people read these times"`
	Expected  float64     `json:"expected_seconds,omitempty"`
	Rests     string      `json:"rests,omitempty" doc:"On what the forecast rests"`
	Refuses   []WaveCheck `json:"refuses" doc:"Checks that don't hold as things are now"`
	Why       string      `json:"why,omitempty" doc:"There is no start, or it was refused last"`
}

// definition reads a wave's definition, and checks it. retries are those of a wave that doesn't say it.
func (in *WaveDefinition) definition(retries int) (d plan.Definition, err error) {
	var errs []error
	day := func(field, s string) (out plan.Day) {
		if s == "" {
			return out
		}
		out, err := plan.ParseDay(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", field, err))
		}
		return out
	}
	span := func(field, s string) (out plan.Span) {
		if s == "" {
			return 0
		}
		if err := out.UnmarshalText([]byte(s)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", field, err))
		}
		return out
	}
	d = plan.Definition{
		Owner: strings.TrimSpace(in.Owner), Pilot: in.Pilot, AtOnce: in.AtOnce, Bake: span("bake", in.Bake), Rest: span("rest", in.Rest),
		NotBefore: day("not_before", in.NotBefore), NotAfter: day("not_after", in.NotAfter),
		Calendar: plan.Calendar{Zone: in.Zone, State: plan.State(in.State)},
	}
	d.Retries = retries
	if in.Retries != nil {
		d.Retries = *in.Retries
	}
	for _, id := range in.Agencies {
		d.Agencies = append(d.Agencies, routing.AgencyID(id))
	}
	for _, n := range in.After {
		d.After = append(d.After, plan.Name(n))
	}
	for i, w := range in.Windows {
		var one plan.Window
		for _, name := range w.Days {
			one.Days = append(one.Days, plan.On(strings.ToLower(name)))
		}
		if err := errors.Join(one.From.UnmarshalText([]byte(w.From)), one.To.UnmarshalText([]byte(w.To))); err != nil {
			errs = append(errs, fmt.Errorf("windows[%d]: %w", i, err))
		}
		d.Windows = append(d.Windows, one)
	}
	for _, s := range in.Holidays {
		d.Holidays = append(d.Holidays, day("holidays", s))
	}
	for _, s := range in.Never {
		d.Never = append(d.Never, day("never", s))
	}
	for _, it := range in.Checks {
		d.Checks = append(d.Checks, plan.Item{ID: it.ID, Text: it.Text, Valid: span("check "+it.ID, it.Valid)})
	}
	if len(errs) == 0 {
		errs = append(errs, d.Check())
	}
	if err := errors.Join(errs...); err != nil {
		p := problem(http.StatusBadRequest, "see docs/operations/plan.md", "the wave's definition is wrong")
		for line := range strings.SplitSeq(err.Error(), "\n") {
			p.Errors = append(p.Errors, Detail{Message: line})
		}
		return d, p
	}
	return d, nil
}

func spanText(s plan.Span) string {
	if s == 0 {
		return ""
	}
	return s.String()
}

func definitionView(d *plan.Definition) WaveDefinition {
	v := WaveDefinition{
		Agencies: texts(d.Agencies), Owner: d.Owner, Pilot: d.Pilot, After: texts(d.After), Zone: d.Zone, State: string(d.State),
		NotBefore: d.NotBefore.String(), NotAfter: d.NotAfter.String(), AtOnce: d.AtOnce, Retries: &d.Retries, Bake: spanText(d.Bake), Rest: spanText(d.Rest),
	}
	for i := range d.Windows {
		w := &d.Windows[i]
		v.Windows = append(v.Windows, WaveWindow{texts(w.Days), w.From.String(), w.To.String()})
	}
	for _, one := range d.Holidays {
		v.Holidays = append(v.Holidays, one.String())
	}
	for _, one := range d.Never {
		v.Never = append(v.Never, one.String())
	}
	for _, it := range d.Checks {
		v.Checks = append(v.Checks, WaveItem{it.ID, it.Text, spanText(it.Valid)})
	}
	return v
}

func waveWordView(w plan.Word) *WaveWord {
	if w.Person == "" {
		return nil
	}
	return &WaveWord{w.Person, w.Time, w.Reason, w.Itself}
}

func waveView(w *plan.Wave) Wave {
	v := Wave{
		Name: string(w.Name), State: string(w.Standing), Definition: definitionView(&w.Definition), Proposal: w.Proposal, Person: w.Proposer, Reason: w.Reason,
		Proposed: w.Made, Approvers: w.Approvers, Started: waveWordView(w.Started), Said: waveWordView(w.Said), Over: timeView(w.Over), Agencies: []WaveAgency{},
	}
	for i := range w.Runs {
		r := &w.Runs[i]
		v.Agencies = append(v.Agencies, WaveAgency{
			Agency: string(r.Agency), Epoch: r.Expected().String(), State: string(r.Place), Operation: string(r.Operation), Attempt: r.Attempt, Retries: r.Retries, Node: string(r.Node),
			Started: timeView(r.Started), Ended: timeView(r.Ended), Closed: time.Duration(r.ClosedFor).Seconds(), Why: r.Why, NotBefore: timeView(r.NotBefore), Canary: r.Canary,
		})
	}
	for _, a := range w.Answers {
		v.Answers = append(v.Answers, WaveAnswer(a))
	}
	return v
}

func checkViews(all []plan.Check) []WaveCheck {
	out := []WaveCheck{}
	for _, c := range all {
		out = append(out, WaveCheck{c.Name, c.OK, c.Informs, c.Person, timeView(c.Until), c.Text})
	}
	return out
}

func stopView(s *plan.Stop) *PlanStop {
	if s == nil {
		return nil
	}
	v := &PlanStop{Since: s.Since, Person: s.Person, Findings: []PlanFinding{}, Revision: uint64(s.Revision)}
	for _, f := range s.Findings {
		v.Findings = append(v.Findings, PlanFinding{string(f.Cause), string(f.Agency), f.Text, f.Time, f.Node})
	}
	return v
}

func timetableView(p *plan.Plan, stop *plan.Stop) Timetable {
	t := p.Timetable()
	v := Timetable{Made: p.Now.UTC(), Rows: []TimetableRow{}, Stop: stopView(stop)}
	for i := range t.Rows {
		r := &t.Rows[i]
		w := p.Waves[slices.IndexFunc(p.Waves, func(w plan.Wave) bool { return w.Name == r.Wave })]
		v.Rows = append(v.Rows, TimetableRow{
			Wave: string(r.Wave), WaveState: string(w.Standing), Agency: string(r.Agency), State: string(r.Place), Mailboxes: r.Mailboxes, Zone: w.Definition.Zone,
			Start: timeView(r.Start), End: timeView(r.End), Worst: timeView(r.Worst), Expected: r.Estimate.Expected.Seconds(), Rests: r.Estimate.Rests,
			Refuses: checkViews(plan.Refused(r.Checks)), Why: r.Why,
		})
	}
	return v
}
