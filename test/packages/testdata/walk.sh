# Installs, upgrades and removes the package in a copy of this machine: walk.sh OLD.deb NEW.deb
# What is wrong is told in lines that begin with FAIL.
set -u
old=$1 new=$2
copy=$(mktemp -d)
mount --make-rprivate / && mount -t tmpfs tmpfs "$copy" && mkdir "$copy/up" "$copy/work" "$copy/root" "$copy/debs" || { echo "FAIL mounts need root"; exit 1; }
cp "$old" "$new" "$copy/debs"
mount -t overlay overlay -o "lowerdir=/,upperdir=$copy/up,workdir=$copy/work" "$copy/root" || { echo "FAIL overlay needs root"; exit 1; }
mount -t proc proc "$copy/root/proc" && mount --rbind /dev "$copy/root/dev"
mkdir "$copy/root/debs" && mount --bind "$copy/debs" "$copy/root/debs"
old=/debs/${old##*/} new=/debs/${new##*/}
in_copy() { chroot "$copy/root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@"; }
check() {
	local what=$1 out
	shift
	if out=$(in_copy "$@" 2>&1 </dev/null); then echo "ok $what"; else printf 'FAIL %s: %s\n%s\n' "$what" "$*" "$out"; fi
}
is() { # is WHAT WANT COMMAND...
	local what=$1 want=$2 got
	shift 2
	got=$(in_copy "$@" 2>&1 </dev/null)
	if [ "$got" = "$want" ]; then echo "ok $what"; else printf 'FAIL %s: got %s, want %s\n' "$what" "$got" "$want"; fi
}
as_user() { echo setpriv --reuid mailcutover --regid mailcutover --clear-groups; }

is "not here before" "" sh -c 'dpkg-query -W mailcutover 2>/dev/null || true'
check "installs" dpkg --force-unsafe-io --install "$old"
is "state" "install ok installed 1.0" dpkg-query -W -f '${Status} ${Version}' mailcutover
check "user" sh -c 'getent passwd mailcutover | grep -q ":/var/lib/mailcutover:/usr/sbin/nologin$"'
is "folder" "750 root mailcutover" stat -c '%a %U %G' /etc/mailcutover
is "secrets" "750 root mailcutover" stat -c '%a %U %G' /etc/mailcutover/secrets
is "settings" "640 root mailcutover" stat -c '%a %U %G' /etc/mailcutover/mailcutover.yaml
is "backups" "700 mailcutover mailcutover" stat -c '%a %U %G' /var/backups/mailcutover
is "program" "755 root root" stat -c '%a %U %G' /usr/bin/mailcutover
check "the user reads the settings" $(as_user) test -r /etc/mailcutover/mailcutover.yaml
check "the user changes none" sh -c "! $(as_user) test -w /etc/mailcutover/mailcutover.yaml"
check "settings are right" $(as_user) mailcutover config check /etc/mailcutover/mailcutover.yaml
check "files are as shipped" dpkg --verify mailcutover
is "configuration files" " /etc/mailcutover/mailcutover.yaml
 /etc/needrestart/conf.d/mailcutover.conf" sh -c "dpkg-query -W -f '\${Conffiles}\n' mailcutover | sed 's/ [0-9a-f]*\$//' | grep ."
check "copyright" test -s /usr/share/doc/mailcutover/copyright
for f in configs/prometheus/alerts.yaml configs/grafana/mailcutover.json configs/hooks/dovecot-close configs/exchange/README.md docs/operations/backup.md mailcutover.example.yaml; do
	check "$f" test -s "/usr/share/doc/mailcutover/$f"
done
check "no world-writable file" sh -c '! find $(dpkg -L mailcutover) -maxdepth 0 ! -type l -perm -o+w | grep .'
is "units" "" sh -c "cd /usr/lib/systemd/system && systemd-analyze verify --man=no mailcutover.service mailcutover-backup.service mailcutover-backup.timer"
check "units are strict" sh -c "cd /usr/lib/systemd/system && systemd-analyze security --offline=true --threshold=20 mailcutover.service mailcutover-backup.service"
is "not enabled by itself" "disabled" systemctl --root=/ is-enabled mailcutover.service
check "nothing else restarts it" perl -e 'our %nrconf; do "/etc/needrestart/conf.d/mailcutover.conf"; my ($p, $v) = %{$nrconf{override_rc}}; "mailcutover.service" =~ $p && !$v or die "restarts"'
check "bash completes" bash -n /usr/share/bash-completion/completions/mailcutover
check "zsh completes" grep -q '^#compdef mailcutover' /usr/share/zsh/vendor-completions/_mailcutover
check "fish completes" grep -q '^complete -c mailcutover' /usr/share/fish/vendor_completions.d/mailcutover.fish
check "completion knows the commands" sh -c "mailcutover __complete agency cut 2>/dev/null | grep -q '^cutover'"
is "manual pages are whole" "" sh -c 'zgrep -L "^.SH NAME" /usr/share/man/man1/mailcutover*.1.gz'
check "a manual page for each command" sh -c 'for c in serve agency-cutover operation-approve restore backup-create health; do test -s /usr/share/man/man1/mailcutover-$c.1.gz || { echo $c; exit 1; }; done'

in_copy sh -c 'echo "# ours" >>/etc/mailcutover/mailcutover.yaml; chgrp root /etc/mailcutover/mailcutover.yaml; mkdir -p /var/lib/mailcutover; echo mail >/var/lib/mailcutover/held; echo s >/etc/mailcutover/secrets/redis'
check "upgrades" dpkg --force-unsafe-io --install "$new"
is "new version" "install ok installed 1.1" dpkg-query -W -f '${Status} ${Version}' mailcutover
is "our settings stay" "# ours" tail -n 1 /etc/mailcutover/mailcutover.yaml
is "and whose they are" "root" stat -c %G /etc/mailcutover/mailcutover.yaml
is "no other copy of them" "/etc/mailcutover/mailcutover.yaml" sh -c 'ls /etc/mailcutover/mailcutover.yaml*'

check "is enabled" systemctl --root=/ enable mailcutover.service mailcutover-backup.timer
check "is removed" dpkg --remove mailcutover
check "the program is gone" test ! -e /usr/bin/mailcutover
is "settings stay" "# ours" tail -n 1 /etc/mailcutover/mailcutover.yaml
check "comes back" dpkg --force-unsafe-io --install "$new"
is "with them" "# ours" tail -n 1 /etc/mailcutover/mailcutover.yaml
check "is purged" dpkg --purge mailcutover
is "and not enabled when it comes back" "" sh -c 'find /etc/systemd/system -name "mailcutover*"'
check "settings are gone" test ! -e /etc/mailcutover/mailcutover.yaml
is "secrets that people put there stay" "s" cat /etc/mailcutover/secrets/redis
is "mail stays" "mail" cat /var/lib/mailcutover/held
is "nothing is known of it" "" sh -c 'dpkg-query -W -f "\${Status}" mailcutover 2>/dev/null || true'
echo end
