#!/usr/bin/env bash
# The manifests of Kubernetes against its schemas, strictly: each file, and where kubectl is there what kustomize makes of all of them.
#
#   tests/operators/manifests.sh KUBERNETES-VALIDATE
set -Eeuo pipefail
validate=$1
folder=$(dirname "$0")/../../deploy/kubernetes
version=1.30
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
for file in "$folder"/*.yaml; do
    case $file in */kustomization.yaml) continue ;; esac
    "$validate" --quiet --strict -k "$version" "$file"
    passed=$((passed + 1))
done
# It can fail.
sed 's/terminationGracePeriodSeconds/terminationGraceSeconds/' "$folder/statefulset.yaml" >"$work/wrong.yaml"
if "$validate" --quiet --strict -k "$version" "$work/wrong.yaml" >/dev/null 2>&1; then
    echo "a field that there is not was taken" && exit 1
fi
kustomize=()
if command -v kubectl >/dev/null; then
    kustomize=(kubectl kustomize)
elif command -v kustomize >/dev/null; then
    kustomize=(kustomize build)
elif [ -x "$(dirname "$validate")/kustomize" ]; then
    kustomize=("$(dirname "$validate")/kustomize" build)
fi
if [ ${#kustomize[@]} -gt 0 ]; then
    "${kustomize[@]}" "$folder" >"$work/all.yaml"
    "$validate" --quiet --strict -k "$version" "$work/all.yaml"
    passed=$((passed + 1))
else
    why="what kustomize makes of the manifests: there is neither kubectl nor kustomize nor go"
    echo "SKIPPED: $why"
    [ -z "${MAYFLY_SKIPPED:-}" ] || echo "$why" >>"$MAYFLY_SKIPPED"
fi
echo "manifests: $passed passed, 0 failed"
