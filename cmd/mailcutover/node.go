package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

// newRouteCommand returns the commands about routes.
func newRouteCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "route", Short: "What would be done with mail or a login"}
	var login bool
	explain := c.command(&cobra.Command{
		Use: "explain ADDRESS|LOGIN", Short: "What would be done now, and why; changes nothing", Args: cobra.ExactArgs(1),
		Long: "What would be done now with mail for an address or with a login, from which record and\nepoch, and why. A name with an @ is an address, unless --login says otherwise.",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		as := "address"
		if login || !strings.Contains(args[0], "@") {
			as = "login"
		}
		r, err := client.Route(cmd.Context(), as, args[0])
		if err != nil {
			return err
		}
		return c.show(cmd, r, func(w io.Writer) { printRoute(w, r) })
	})
	explain.Flags().BoolVar(&login, "login", false, "the name is a login")
	cmd.AddCommand(explain, newRouteLogin(c))
	return cmd
}

func newRouteLogin(c *connection) *cobra.Command {
	return c.command(&cobra.Command{
		Use: "login NAME", Short: "Where this node would send a login now; changes nothing", Args: cobra.ExactArgs(1),
		Long: "Where this node would send a login now, by the forms of names that its listeners take:\naddress, login, DOMAIN\\user. It is what a proxy in front of web mail asks.",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		r, err := client.RouteLogin(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return c.show(cmd, r, func(w io.Writer) {
			pairs(w, [2]string{"login", r.Login}, [2]string{"open", yesNo(r.Open)}, [2]string{"platform", r.Platform}, [2]string{"reason", r.Reason},
				[2]string{"agency", r.Agency}, [2]string{"mailbox", r.Mailbox}, [2]string{"phase", r.Phase}, [2]string{"epoch", r.Epoch})
		})
	})
}

func printRoute(w io.Writer, r admin.Route) {
	verdict := "no"
	if r.Deliver {
		verdict = "yes, to " + r.Platform + " as " + r.Address
		if r.As == "login" {
			verdict = "yes, to " + r.Platform + " as " + r.Login
		}
	}
	words := r.Explain
	if words == r.Reason {
		words = "" // nothing to add
	}
	list := [][2]string{{r.As, r.Name}, {"goes through", verdict}, {"reason", r.Reason}, {"in words", words}, {"sender is answered", r.Answer}, {"agency", r.Agency}, {"phase", r.Phase}, {"epoch", r.Epoch}}
	if r.Mailbox != nil {
		list = append(list, [2]string{"mailbox", r.Mailbox.ID}, [2]string{"addresses", strings.Join(r.Mailbox.Addresses, " ")}, [2]string{"logins", strings.Join(r.Mailbox.Logins, " ")})
	}
	list = append(list, [2]string{"platform", r.Platform}, [2]string{"table", fmt.Sprintf("revision %d, %s", r.Table.Revision, age(r.Table))})
	pairs(w, list...)
}

func putOff(why string) string {
	if why == "" {
		return ""
	}
	return "put off: " + why
}

func age(t admin.Table) string {
	if t.Age < 0 {
		return "never reached since the start"
	}
	return "as of " + seconds(t.Age) + " ago"
}

// newTableCommand returns the commands about the table.
func newTableCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "table", Short: "The state table, as the node sees it"}
	show := c.command(&cobra.Command{Use: "show", Short: "Where the node's copy stands, served domains, platforms", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			var all struct {
				Table     admin.Table      `json:"table"`
				Domains   []admin.Domain   `json:"domains"`
				Platforms []admin.Platform `json:"platforms"`
			}
			var err error
			if all.Table, err = client.Table(cmd.Context()); err != nil {
				return err
			}
			if all.Domains, err = client.Domains(cmd.Context()); err != nil {
				return err
			}
			if all.Platforms, err = client.Platforms(cmd.Context()); err != nil {
				return err
			}
			return c.show(cmd, all, func(w io.Writer) {
				printTable(w, all.Table)
				var rows [][]string
				for _, d := range all.Domains {
					rows = append(rows, []string{d.Name, yesNo(d.Complete)})
				}
				fmt.Fprintln(w)
				table(w, []string{"DOMAIN", "COMPLETE"}, rows)
				rows = nil
				for _, p := range all.Platforms {
					rows = append(rows, []string{p.ID, yesNo(p.Ready), p.Error})
				}
				fmt.Fprintln(w)
				table(w, []string{"PLATFORM", "READY", "ERROR"}, rows)
			})
		})
	cmd.AddCommand(show, newReconcile(c), newEndRejoin(c), newNamesComplete(c), newDomainComplete(c), newBootstrap(c))
	return cmd
}

func printTable(w io.Writer, t admin.Table) {
	pairs(w, [2]string{"incarnation", t.Incarnation}, [2]string{"revision", strconv.FormatUint(t.Revision, 10)},
		[2]string{"names changed at", strconv.FormatUint(t.Mapped, 10)},
		[2]string{"trusted", yesNo(t.Open)}, [2]string{"reason", t.Reason}, [2]string{"this node decides", yesNo(t.Decides)},
		[2]string{"copy", age(t)}, [2]string{"error", t.Error}, [2]string{"agencies", strconv.Itoa(t.Agencies)}, [2]string{"mailboxes", strconv.Itoa(t.Mailboxes)},
		[2]string{"mappings missing", strings.Join(t.Missing, ", ")}, [2]string{"regressed", strings.Join(t.Regressed, ", ")},
		[2]string{"names claimed twice", strings.Join(t.Conflicts, ", ")}, [2]string{"mail to <postmaster>", putOff(t.Postmaster)},
		[2]string{"on disk", strconv.FormatUint(t.OnDisk, 10)}, [2]string{"disk error", t.DiskError})
}

// newAlarmCommand returns the commands about alarms.
func newAlarmCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "alarm", Short: "What a human has to see: list, clear"}
	list := c.command(&cobra.Command{Use: "list", Short: "Alarms that are not done, the oldest first", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			alarms, err := client.Alarms(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(cmd, alarms, func(w io.Writer) {
				var rows [][]string
				for _, a := range alarms {
					rows = append(rows, []string{a.Key, local(&a.Since), local(&a.Last), strconv.Itoa(a.Count), a.Text})
				}
				table(w, []string{"ALARM", "SINCE", "LAST", "COUNT", "TEXT"}, rows)
			})
		})
	var reason string
	done := c.command(&cobra.Command{Use: "clear ALARM", Short: "Mark an alarm as done", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
			if err := client.ClearAlarm(cmd.Context(), args[0], reason); err != nil {
				return err
			}
			return c.show(cmd, map[string]string{"cleared": args[0]}, func(w io.Writer) {
				fmt.Fprintf(w, "alarm %s cleared; it comes again if its cause does\n", printable(args[0]))
			})
		})
	addReason(done, &reason)
	cmd.AddCommand(list, done)
	return cmd
}

// newVersionCommand prints the version of this program, or of the node's.
func newVersionCommand(c *connection) *cobra.Command {
	var node bool
	cmd := &cobra.Command{Use: "version", Short: "Version of this program, or with --node of the node's", Args: cobra.NoArgs}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v := version()
		if node {
			client, err := c.client()
			if err != nil {
				return err
			}
			if v, err = client.Version(cmd.Context()); err != nil {
				return err
			}
		}
		return c.show(cmd, v, func(w io.Writer) {
			pairs(w, [2]string{"version", v.Version}, [2]string{"revision", v.Revision}, [2]string{"go", v.Go})
		})
	}
	cmd.Flags().BoolVar(&node, "node", false, "ask the node")
	return cmd
}
