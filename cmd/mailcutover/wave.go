package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"mailcutover/admin"
)

// newWaveCommand returns the commands about waves of agencies.
func newWaveCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use: "wave", Short: "Waves of agencies that nodes cut over one after the other: propose, start, plan, pause, stop",
		Long: "Waves of agencies that the nodes cut over one after the other, within windows, while a checklist\nholds. A wave is proposed and approved once (operation approve), and started. docs/operations/plan.md\nhas the whole way.",
	}
	cmd.AddCommand(newWaveList(c), newWaveShow(c), newWavePlan(c), newWavePropose(c), newWaveStart(c), newWaveAnswer(c),
		newWavePause(c), newWaveResume(c), newWaveSkip(c), newWaveEnd(c), newWaveStop(c), newWaveLift(c))
	return cmd
}

func newWaveList(c *connection) *cobra.Command {
	return c.command(&cobra.Command{Use: "list", Short: "All waves, and whether the plan is stopped", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			all, err := client.Waves(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(cmd, all, func(w io.Writer) { printWaves(w, &all) })
		})
}

func printWaves(w io.Writer, all *admin.Waves) {
	var rows [][]string
	for i := range all.Waves {
		v := &all.Waves[i]
		places := make(map[string]int)
		for _, a := range v.Agencies {
			places[a.State]++
		}
		why := ""
		if v.Said != nil && v.State != "running" {
			why = v.Said.Reason
		}
		if v.Approval != "" {
			why = "its proposal is " + v.Approval
		}
		rows = append(rows, []string{v.Name, v.State, v.Definition.Owner, strconv.Itoa(len(v.Agencies)), strconv.Itoa(places["done"]), strconv.Itoa(places["starting"] + places["running"]), strconv.Itoa(places["waiting"]), why})
	}
	table(w, []string{"WAVE", "STATE", "OWNER", "AGENCIES", "DONE", "UNDER WAY", "WAITING", "WHY"}, rows)
	printStop(w, all.Stop)
	for _, text := range all.Unreadable {
		fmt.Fprintf(w, "made by another version of the program: %s\n", oneLine(text))
	}
}

func printStop(w io.Writer, s *admin.PlanStop) {
	if s == nil {
		return
	}
	fmt.Fprintf(w, "\nTHE PLAN IS STOPPED since %s: no wave starts another agency, and no cutover of an agency of a wave begins. Rollbacks go on.\n", local(&s.Since))
	for _, f := range s.Findings {
		fmt.Fprintf(w, "  %s  %s: %s\n", local(&f.Time), f.Cause, oneLine(f.Text))
	}
	fmt.Fprintln(w, "next: look at each; then a releaser: mailcutover wave lift --reason ...")
}

func newWaveShow(c *connection) *cobra.Command {
	return c.command(&cobra.Command{Use: "show WAVE", Short: "One wave, with the checklist of its next agency and what keeps that from starting", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
			v, err := client.Wave(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.show(cmd, v, func(w io.Writer) { printWave(w, &v) })
		})
}

func printWave(w io.Writer, v *admin.Wave) {
	d := &v.Definition
	var windows []string
	for _, one := range d.Windows {
		windows = append(windows, strings.Join(one.Days, ",")+" "+one.From+"-"+one.To)
	}
	said, started := "", ""
	if v.Said != nil {
		said = fmt.Sprintf("%s, %s: %s", v.Said.Person, local(&v.Said.Time), v.Said.Reason)
	}
	if v.Started != nil {
		started = fmt.Sprintf("%s, %s", v.Started.Person, local(&v.Started.Time))
	}
	pilot := ""
	if d.Pilot {
		pilot = "yes: other waves wait for it"
	}
	pairs(w, [2]string{"wave", v.Name}, [2]string{"state", v.State}, [2]string{"said last", said}, [2]string{"owner", d.Owner}, [2]string{"pilot", pilot}, [2]string{"after", strings.Join(d.After, ", ")},
		[2]string{"proposed by", fmt.Sprintf("%s, %s: %s", v.Person, local(&v.Proposed), v.Reason)}, [2]string{"proposal", strings.TrimSpace(v.Proposal + " " + v.Approval)}, [2]string{"approved by", strings.Join(v.Approvers, ", ")}, [2]string{"started by", started},
		[2]string{"windows", strings.Join(windows, "; ") + ", clocks of " + d.Zone}, [2]string{"holidays", strings.TrimSpace(d.State + " " + strings.Join(d.Holidays, ", "))}, [2]string{"never", strings.Join(d.Never, ", ")},
		[2]string{"not before", d.NotBefore}, [2]string{"not after", d.NotAfter},
		[2]string{"at once", strconv.Itoa(max(1, d.AtOnce))}, [2]string{"retries", retriesText(d.Retries)}, [2]string{"bake", d.Bake}, [2]string{"rest", d.Rest})
	var rows [][]string
	for _, a := range v.Agencies {
		closed := ""
		if a.Closed > 0 {
			closed = seconds(a.Closed)
		}
		rows = append(rows, []string{a.Agency, a.State, local(a.Started), local(a.Ended), closed, a.Operation, firstOf(a.Why, a.Canary)})
	}
	fmt.Fprintln(w)
	table(w, []string{"AGENCY", "STATE", "STARTED", "ENDED", "CLOSED", "OPERATION", "WHY"}, rows)
	if v.Next == "" {
		return
	}
	fmt.Fprintf(w, "\nchecklist of the next agency, %s:\n", v.Next)
	printChecks(w, v.Checks)
	if len(v.Obstacles) == 0 {
		fmt.Fprintf(w, "\nnothing keeps agency %s from starting\n", v.Next)
		return
	}
	fmt.Fprintf(w, "\nwhat keeps agency %s from starting now:\n", v.Next)
	for _, o := range v.Obstacles {
		until := ""
		if o.Until != nil {
			until = " (until " + local(o.Until) + ")"
		}
		fmt.Fprintf(w, "  %s: %s%s\n", o.Name, oneLine(o.Text), until)
	}
}

// retriesText says how often an aborted agency may be tried again; empty: an older node doesn't say.
func retriesText(n *int) string {
	if n == nil {
		return ""
	}
	return strconv.Itoa(*n) + " of each agency, after it was aborted"
}

func printChecks(w io.Writer, all []admin.WaveCheck) {
	var rows [][]string
	for _, one := range all {
		mark := "ok"
		switch {
		case !one.OK && one.Informs:
			mark = "note"
		case !one.OK:
			mark = "NO"
		}
		rows = append(rows, []string{mark, one.Name, firstOf(one.Person, "the program"), local(one.Until), one.Text})
	}
	table(w, []string{"", "CHECK", "BY", "UNTIL", "WHAT"}, rows)
}

func newWavePlan(c *connection) *cobra.Command {
	return c.command(&cobra.Command{
		Use: "plan", Short: "The timetable of all waves, on what it rests, and what would refuse it now", Args: cobra.NoArgs,
		Long: "When the agencies of all waves are likely to be cut over, if nothing refuses and nobody pauses; on\nwhich measured cutovers that rests; and each check that doesn't hold as things are now. Times are those of\neach wave's own zone.",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		t, err := client.Timetable(cmd.Context())
		if err != nil {
			return err
		}
		return c.show(cmd, t, func(w io.Writer) { printTimetable(w, &t) })
	})
}

// inZone returns a time by a wave's clocks; by those here where the zone isn't known.
func inZone(t *time.Time, zone string) string {
	if t == nil || t.IsZero() {
		return ""
	}
	at, err := time.LoadLocation(zone)
	if err != nil {
		at = time.Local
	}
	return t.In(at).Format("Mon 2006-01-02 15:04 MST")
}

func printTimetable(w io.Writer, t *admin.Timetable) {
	var rows [][]string
	rests := make(map[string]bool)
	var order []string
	for i := range t.Rows {
		r := &t.Rows[i]
		mailboxes := ""
		if r.Mailboxes >= 0 {
			mailboxes = strconv.Itoa(r.Mailboxes)
		}
		refused := ""
		if n := len(r.Refuses); n > 0 {
			refused = fmt.Sprintf("%d %s", n, plural(n, "check", "checks"))
		}
		rows = append(rows, []string{r.Wave, r.WaveState, r.Agency, r.State, mailboxes, inZone(r.Start, r.Zone), inZone(r.End, r.Zone), inZone(r.Worst, r.Zone), refused, r.Why})
		if r.Rests != "" && !rests[r.Rests] {
			rests[r.Rests] = true
			order = append(order, r.Rests)
		}
	}
	table(w, []string{"WAVE", "STATE", "AGENCY", "STATE", "MAILBOXES", "START", "END", "AT WORST", "REFUSED BY", "WHY"}, rows)
	for _, one := range order {
		fmt.Fprintf(w, "\nthe forecast rests on %s\n", oneLine(one))
	}
	for i := range t.Rows {
		r := &t.Rows[i]
		for _, one := range r.Refuses {
			fmt.Fprintf(w, "%s %s: %s: %s\n", r.Wave, r.Agency, one.Name, oneLine(one.Text))
		}
	}
	printStop(w, t.Stop)
}

// maxWaveFile is the largest file with a wave's definition, in bytes.
const maxWaveFile = 1 << 20

// ofFile is how the decoder names a field that a wave doesn't have: with a type of ours.
var ofFile = regexp.MustCompile(`field (\S+) not found in type \S+`)

// readWave reads a wave's definition, YAML with the fields that the API has.
func readWave(in io.Reader, path string) (d admin.WaveDefinition, err error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return d, withHint(fmt.Errorf("wave: %w", err), "docs/operations/plan.md shows such a file")
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxWaveFile))
	if err != nil {
		return d, fmt.Errorf("read %s: %w", path, err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&d); err != nil {
		if wrong, ok := errors.AsType[*yaml.TypeError](err); ok {
			err = errors.New(ofFile.ReplaceAllString(strings.Join(wrong.Errors, "; "), "$1: no such field"))
		}
		return d, withHint(fmt.Errorf("read %s: %w", path, err), "docs/operations/plan.md shows such a file")
	}
	return d, nil
}

func newWavePropose(c *connection) *cobra.Command {
	var n admin.NewWave
	var file string
	cmd := c.command(&cobra.Command{
		Use: "propose WAVE", Short: "Propose a wave, or propose it anew while it doesn't run", Args: cobra.ExactArgs(1),
		Example: "  mailcutover wave propose wave-1 --file wave-1.yaml --reason 'first ministries'",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		n.Name = args[0]
		var err error
		if n.Definition, err = readWave(cmd.InOrStdin(), file); err != nil {
			return err
		}
		p, err := client.ProposeWave(cmd.Context(), n)
		if err != nil {
			return err
		}
		return c.show(cmd, p, func(w io.Writer) {
			printProposal(w, p)
			fmt.Fprintln(w)
			switch {
			case n.DryRun:
				fmt.Fprintln(w, "dry run: nothing was proposed")
				return
			case p.Missing > 0:
				fmt.Fprintf(w, "proposed; %d other %s to approve it, and it has to be started, until %s\n", p.Missing, plural(p.Missing, "person has", "persons have"), local(&p.Expires))
				fmt.Fprintf(w, "next: another person: mailcutover operation approve %s --digest %s\n", p.ID, p.Digest)
			default:
				fmt.Fprintln(w, "proposed; nobody else has to approve it")
			}
			fmt.Fprintf(w, "then: mailcutover wave start %s\n", n.Name)
			fmt.Fprintf(w, "undo: mailcutover operation withdraw %s --reason ...\n", p.ID)
		})
	})
	cmd.Flags().StringVar(&file, "file", "", "YAML with the wave's definition; - is standard input")
	cmd.Flags().BoolVar(&n.DryRun, "dry-run", false, "only say what it would be")
	addReason(cmd, &n.Reason)
	_ = cmd.MarkFlagRequired("file") // it is there
	_ = cmd.MarkFlagFilename("file", "yaml", "yml")
	return cmd
}

func newWaveStart(c *connection) *cobra.Command {
	return c.command(&cobra.Command{Use: "start WAVE", Short: "Start a wave that others have approved: nodes cut its agencies over from then on", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
			done, err := client.StartWave(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.show(cmd, done, func(w io.Writer) {
				fmt.Fprintln(w, printable(done.Done))
				fmt.Fprintf(w, "undo: %s --reason ...; what has moved by then goes back by operations of its own\n", done.Undo)
			})
		})
}

func newWaveAnswer(c *connection) *cobra.Command {
	var no bool
	var note string
	cmd := c.command(&cobra.Command{
		Use: "answer WAVE ITEM", Short: "Answer a question of a wave's checklist, in your name", Args: cobra.ExactArgs(2),
		Example: "  mailcutover wave answer wave-1 backup --note 'snapshot 2026-11-27 18:00, restored one mailbox'",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		v, err := client.AnswerWave(cmd.Context(), args[0], args[1], !no, note)
		if err != nil {
			return err
		}
		return c.show(cmd, v, func(w io.Writer) {
			fmt.Fprintf(w, "wave %s: %s is answered: %s\nundo: mailcutover wave answer %s %s%s --note ...\n", v.Name, args[1], yesNo(!no), v.Name, args[1], map[bool]string{false: " --no"}[no])
		})
	})
	cmd.Flags().BoolVar(&no, "no", false, "the answer is no: the wave starts nothing")
	cmd.Flags().StringVar(&note, "note", "", "what the answer rests on")
	return cmd
}

// newWaveAct is a command that says one thing about a wave.
func newWaveAct(c *connection, cmd *cobra.Command, undo string, do func(cmd *cobra.Command, client *admin.Client, args []string, reason string) (admin.Wave, error)) *cobra.Command {
	var reason string
	c.command(cmd, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		v, err := do(cmd, client, args, reason)
		if err != nil {
			return err
		}
		return c.show(cmd, v, func(w io.Writer) {
			fmt.Fprintf(w, "wave %s is %s\n", v.Name, v.State)
			if undo == "" {
				fmt.Fprintln(w, "undo: there is none; propose it again")
				return
			}
			fmt.Fprintf(w, "undo: mailcutover wave %s %s --reason ...\n", undo, v.Name)
		})
	})
	addReason(cmd, &reason)
	return cmd
}

func newWavePause(c *connection) *cobra.Command {
	return newWaveAct(c, &cobra.Command{Use: "pause WAVE", Short: "Keep a wave's next agencies from starting; what is under way goes on", Args: cobra.ExactArgs(1)}, "resume",
		func(cmd *cobra.Command, client *admin.Client, args []string, reason string) (admin.Wave, error) {
			return client.PauseWave(cmd.Context(), args[0], reason)
		})
}

func newWaveResume(c *connection) *cobra.Command {
	var retry []string
	cmd := newWaveAct(c, &cobra.Command{Use: "resume WAVE", Short: "Let a paused wave go on", Args: cobra.ExactArgs(1)}, "pause",
		func(cmd *cobra.Command, client *admin.Client, args []string, reason string) (admin.Wave, error) {
			return client.ResumeWave(cmd.Context(), args[0], retry, time.Time{}, reason)
		})
	cmd.Flags().StringSliceVar(&retry, "retry", nil, "agency whose operation was aborted, and that is tried again; may be repeated")
	return cmd
}

func newWaveSkip(c *connection) *cobra.Command {
	var reason string
	cmd := c.command(&cobra.Command{Use: "skip WAVE AGENCY", Short: "Take an agency out of a wave's order", Args: cobra.ExactArgs(2)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
			v, err := client.SkipAgency(cmd.Context(), args[0], args[1], reason)
			if err != nil {
				return err
			}
			return c.show(cmd, v, func(w io.Writer) {
				fmt.Fprintf(w, "wave %s leaves agency %s out\nundo: there is none; cut it over by a proposal of its own: mailcutover operation propose cutover --agency %s --reason ...\n", v.Name, args[1], args[1])
			})
		})
	addReason(cmd, &reason)
	return cmd
}

func newWaveEnd(c *connection) *cobra.Command {
	return newWaveAct(c, &cobra.Command{Use: "end WAVE", Short: "End a wave for good; what is under way goes on", Args: cobra.ExactArgs(1)}, "",
		func(cmd *cobra.Command, client *admin.Client, args []string, reason string) (admin.Wave, error) {
			return client.EndWave(cmd.Context(), args[0], reason)
		})
}

func newWaveStop(c *connection) *cobra.Command {
	var reason string
	cmd := c.command(&cobra.Command{Use: "stop", Short: "Stop the plan: no wave starts another agency until a releaser lifts that", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			all, err := client.StopPlan(cmd.Context(), reason)
			if err != nil {
				return err
			}
			return c.show(cmd, all, func(w io.Writer) {
				printStop(w, all.Stop)
				fmt.Fprintln(w, "undo: a releaser: mailcutover wave lift --reason ...")
			})
		})
	addReason(cmd, &reason)
	return cmd
}

func newWaveLift(c *connection) *cobra.Command {
	var reason string
	cmd := c.command(&cobra.Command{
		Use: "lift", Short: "Lift the stop of the plan, once you have looked at each finding", Args: cobra.NoArgs,
		Long: "Lift the stop of the plan. What it rested on doesn't stop the plan again; anything new does. Running\nwaves go on at once.",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		before, err := client.Waves(cmd.Context())
		if err != nil {
			return err
		}
		var revision uint64
		if before.Stop != nil {
			revision = before.Stop.Revision
		}
		all, err := client.LiftPlan(cmd.Context(), revision, reason)
		if err != nil {
			return err
		}
		if all.Stop != nil {
			return errors.New("something new has stopped the plan meanwhile: mailcutover wave list")
		}
		return c.show(cmd, all, func(w io.Writer) {
			if before.Stop != nil {
				for _, f := range before.Stop.Findings {
					fmt.Fprintf(w, "lifted: %s  %s: %s\n", local(&f.Time), f.Cause, oneLine(f.Text))
				}
			}
			fmt.Fprintln(w, "the plan is not stopped any more; running waves go on\nundo: mailcutover wave stop --reason ...")
		})
	})
	addReason(cmd, &reason)
	return cmd
}
