"""What tests/aws.sh and tests/secret_sources.sh do in the account of moto, by boto3.

    account.py create | denied | whoami | requests | secret NAME VALUE | secret NAME delete
"""
import json
import os
import sys

import boto3

MOTO = os.environ.get('MOTO')
ROLES = ('reports', 'mayfly-reports')


def client(service):
    return boto3.client(service, endpoint_url=MOTO)


def create():
    trust = {'Version': '2012-10-17', 'Statement': [{
        'Effect': 'Allow', 'Action': ['sts:AssumeRoleWithWebIdentity', 'sts:TagSession'], 'Principal': {'Federated': '*'}}]}
    for role in ROLES:
        client('iam').create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(trust))


def denied():
    """One line for each session that a policy of the role denies. A policy that is not as documented is an error."""
    iam = client('iam')
    for name in iam.list_role_policies(RoleName='reports')['PolicyNames']:
        document = iam.get_role_policy(RoleName='reports', PolicyName=name)['PolicyDocument']
        [statement] = document['Statement']
        assert (statement['Effect'], statement['Action'], statement['Resource']) == ('Deny', '*', '*'), statement
        for tag in statement['Condition']['StringEquals']['aws:PrincipalTag/mayfly-lease']:
            print(tag)


def whoami():
    print(client('sts').get_caller_identity()['Arn'])


def requests():
    roles = client('iam').list_roles()['Roles']
    assert {role['RoleName'] for role in roles} == set(ROLES)


def secret(name, value):
    """A secret of Secrets Manager, or a new version of it. Prints its ARN."""
    manager = client('secretsmanager')
    if value == 'delete':
        manager.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
        return
    try:
        print(manager.create_secret(Name=name, SecretString=value)['ARN'])
    except manager.exceptions.ResourceExistsException:
        print(manager.put_secret_value(SecretId=name, SecretString=value)['ARN'])


if __name__ == '__main__':
    commands = {'create': create, 'denied': denied, 'whoami': whoami, 'requests': requests, 'secret': secret}
    commands[sys.argv[1]](*sys.argv[2:])
