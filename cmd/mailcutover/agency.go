package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

// newAgencyCommand returns the commands about agencies.
func newAgencyCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "agency", Short: "Agencies: add, show, switch"}
	cmd.AddCommand(newAgencyList(c), newAgencyShow(c), newAgencyAdd(c), newAgencyArm(c), newAgencySettle(c),
		newCutover(c), newRollback(c), newLock(c), newUnlock(c), newFinalise(c), newFreeze(c), newLift(c), newFreezes(c))
	return cmd
}

func newAgencyList(c *connection) *cobra.Command {
	return c.command(&cobra.Command{Use: "list", Short: "All agencies", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			list, err := client.Agencies(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(cmd, list, func(w io.Writer) {
				var rows [][]string
				for _, a := range list {
					rows = append(rows, []string{a.ID, a.Phase, a.Platform, yesNo(a.Open), a.Epoch, a.Tightness, strconv.Itoa(a.Mailboxes), a.Parent, a.Operation})
				}
				table(w, []string{"AGENCY", "PHASE", "PLATFORM", "OPEN", "EPOCH", "LEASED", "MAILBOXES", "PARENT", "OPERATION"}, rows)
			})
		})
}

func newAgencyShow(c *connection) *cobra.Command {
	return c.command(&cobra.Command{Use: "show AGENCY", Short: "One agency's record, and what is under way for it", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
			a, err := client.Agency(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.show(cmd, a, func(w io.Writer) { printAgency(w, a) })
		})
}

func printAgency(w io.Writer, a admin.Agency) {
	note := func(set bool, text string) string {
		if set {
			return text
		}
		return ""
	}
	pairs(w, [2]string{"agency", a.ID}, [2]string{"parent", a.Parent}, [2]string{"pilot groups", strings.Join(a.Children, ", ")},
		[2]string{"phase", a.Phase}, [2]string{"platform", a.Platform},
		[2]string{"open", yesNo(a.Open)}, [2]string{"locked", note(a.Locked, "yes: closed whatever its phase")},
		[2]string{"published", note(!a.Published, "no: committed, closed until publish")},
		[2]string{"unconfirmed", note(len(a.Unconfirmed) > 0, "emergency "+strings.Join(a.Unconfirmed, ", ")+": a second person has to confirm it")},
		[2]string{"frozen", a.Frozen},
		[2]string{"regressed", note(a.Regressed, "yes: a newer record was seen before; closed")},
		[2]string{"way back", note(a.Finalised, "none: finalised")},
		[2]string{"epoch", a.Epoch}, [2]string{"leased", a.Tightness}, [2]string{"operation", a.Operation},
		[2]string{"source", a.Source}, [2]string{"target", a.Target},
		[2]string{"mailboxes", strconv.Itoa(a.Mailboxes)}, [2]string{"mapping", mappingText(a.Mapping)},
		[2]string{"revision", strconv.FormatUint(a.Revision, 10)},
		[2]string{"under way", fmt.Sprintf("%d without dot, %d dots awaited, %d in doubt", a.UnderWay.Open, a.UnderWay.Dotted, a.UnderWay.InDoubt)})
}

// mappingText is the digest of an agency's mapping; that of none has only zeros.
func mappingText(digest string) string {
	if strings.Trim(digest, "0") == "" {
		return "empty"
	}
	return digest
}

func newAgencyAdd(c *connection) *cobra.Command {
	var a admin.NewAgency
	cmd := c.command(&cobra.Command{
		Use: "add AGENCY", Short: "Add an agency, open on its source platform", Args: cobra.ExactArgs(1),
		Long:    "Add an agency, open on its source platform. Unless in a lab, it is proposed, and another\nperson approves it; the same command then adds it.",
		Example: "  mailcutover agency add health --source exchange --target ox --domain health.example --reason 'wave 3'",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		a.ID = args[0]
		alone, err := c.alone(cmd, client)
		if err != nil {
			return err
		}
		if !alone {
			return c.propose(cmd, client, admin.NewProposal{
				Kind: "add-agency", Reason: a.Reason, Add: &admin.AddedAgency{ID: a.ID, Source: a.Source, Target: a.Target, Parent: a.Parent, Domains: a.Domains},
			}, unasked)
		}
		added, err := client.AddAgency(cmd.Context(), a)
		if err != nil {
			return err
		}
		return c.show(cmd, added, func(w io.Writer) {
			fmt.Fprintf(w, "agency %s added: open on %s, epoch %s, revision %d\n", added.ID, added.Platform, added.Epoch, added.Revision)
			fmt.Fprintln(w, "undo: there is none; an agency without mailboxes routes nothing")
			fmt.Fprintf(w, "next: mailcutover list generate --agency %[1]s, or in a lab mailcutover mailbox import FILE.csv --reason ...\n", added.ID)
		})
	})
	cmd.Flags().StringVar(&a.Source, "source", "", "platform that holds its mailboxes now")
	cmd.Flags().StringVar(&a.Target, "target", "", "platform that it moves to")
	cmd.Flags().StringVar(&a.Parent, "parent", "", "agency that it is a pilot group of")
	cmd.Flags().StringSliceVar(&a.Domains, "domain", nil, "domain that is served from now on; may be repeated")
	addReason(cmd, &a.Reason)
	require(cmd, "source", "target")
	return cmd
}

func newAgencyArm(c *connection) *cobra.Command {
	var reason, epoch string
	cmd := c.command(&cobra.Command{
		Use: "arm AGENCY", Short: "Make an agency ready to be switched", Args: cobra.ExactArgs(1),
		Long: "Make an agency ready to be switched: nodes lease it shortly and check before each\nfinal dot. No answer changes.",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		seen, err := seenEpoch(cmd, client, args[0], epoch)
		if err != nil {
			return err
		}
		a, err := client.Arm(cmd.Context(), args[0], seen, reason)
		if err != nil {
			return err
		}
		return c.show(cmd, a, func(w io.Writer) {
			fmt.Fprintf(w, "agency %s is armed in epoch %s\n", a.ID, a.Epoch)
			fmt.Fprintf(w, "undo: mailcutover agency settle %s --reason ...\n", a.ID)
		})
	})
	addReason(cmd, &reason)
	addEpoch(cmd, &epoch)
	return cmd
}

// seenEpoch returns the epoch that the operator has seen, or that of the record now.
func seenEpoch(cmd *cobra.Command, client *admin.Client, agency, epoch string) (string, error) {
	if epoch != "" {
		return epoch, nil
	}
	a, err := client.Agency(cmd.Context(), agency)
	return a.Epoch, err
}

func addReason(cmd *cobra.Command, reason *string) {
	cmd.Flags().Var((*reasonFlag)(reason), "reason", "why; it is journaled (required)")
	require(cmd, "reason")
}

// reasonFlag is a flag for why something is done: not blank.
type reasonFlag string

// String implements pflag.Value.
func (r *reasonFlag) String() string { return string(*r) }

// Type implements pflag.Value.
func (r *reasonFlag) Type() string { return "string" }

// Set implements pflag.Value.
func (r *reasonFlag) Set(text string) error {
	if strings.TrimSpace(text) == "" {
		return errors.New("say why; it is journaled")
	}
	*r = reasonFlag(text)
	return nil
}

func addEpoch(cmd *cobra.Command, epoch *string) {
	cmd.Flags().StringVar(epoch, "expected-epoch", "", "refuse if the agency's epoch is another (default: that of its record now)")
}

// require marks flags; their names are ours, so that can't fail.
func require(cmd *cobra.Command, flags ...string) {
	for _, f := range flags {
		if err := cmd.MarkFlagRequired(f); err != nil {
			panic(err)
		}
	}
}
