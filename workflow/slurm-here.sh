#!/usr/bin/env bash
# Slurm with this machine as its only node, to try workflow/profiles/slurm where there is no cluster.
# As root on Debian or Ubuntu; writes /etc/slurm/slurm.conf, so never on a machine that belongs to a cluster.
set -euo pipefail

if [[ -e /etc/slurm/slurm.conf ]] && ! grep -q '^ClusterName=hw3lib-here$' /etc/slurm/slurm.conf; then
    echo "/etc/slurm/slurm.conf is not this script's; this machine belongs to a cluster already" >&2
    exit 1
fi
apt-get install --yes --quiet munge slurmctld slurmd >/dev/null
mkdir -p /run/munge /var/spool/slurmctld /var/spool/slurmd
chown munge: /run/munge

memory=$(awk '/^MemTotal/ { print int($2 / 1024 * 0.9) }' /proc/meminfo)
cat >/etc/slurm/slurm.conf <<END
ClusterName=hw3lib-here
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=root
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
NodeName=$(hostname) NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END

pgrep -x munged >/dev/null || runuser -u munge -- munged
pgrep -x slurmctld >/dev/null || slurmctld
pgrep -x slurmd >/dev/null || slurmd
for _ in {1..30}; do
    if sinfo --noheader --states=idle | grep -q .; then
        exec sinfo
    fi
    sleep 1
done
echo "the node did not come up; see slurmctld -D and slurmd -D" >&2
exit 1
